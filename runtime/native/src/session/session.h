// One text, read and continued, in a cache of fixed size. For one thread at a time.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "session/answer.h"
#include "session/model.h"
#include "session/passage.h"
#include "session/reader.h"

namespace lcc {

// As catalyst: the first tokens of the text itself.
constexpr const char* BEGINNING_CATALYST = "beginning";

struct SessionOptions {
    AskedSizes sizes;
    std::optional<int64_t> seed;  // of the numbers that policy "random" draws
    std::optional<ArchiveOptions> archive;
};

struct FeedOptions {
    Feeding how;
    bool prefix = true, plain = false;
    std::optional<std::string> catalyst_text;
};

struct Message {
    std::string role, content;
};

class Session {
public:
    Session(std::shared_ptr<Model> model, const SessionOptions& options);

    // Reading. Throw Error, or Stopped; `fed` says how many tokens were read.
    void feed_text(std::string_view text, FeedOptions options);
    void feed_ids(const TokenIds& ids, FeedOptions options);
    void feed_begin(FeedOptions options);
    void feed_write_text(std::string_view text);
    void feed_write_ids(const TokenIds& ids);
    void feed_end();
    int64_t fed() const { return reader_.fed(); }
    bool is_feeding() const { return feeding_; }
    std::vector<float> nll(const TokenIds& ids);

    void set_catalyst_text(std::string_view text);
    void set_catalyst_ids(const TokenIds& ids);
    void distill();

    // Writing. `prompt`: read first; nothing = go on from what was read.
    void start_text(std::optional<std::string_view> prompt, const GenerateOptions& options);
    void start_ids(const TokenIds& ids, const GenerateOptions& options);
    void start_chat(const std::vector<Message>& messages, const GenerateOptions& options);
    std::optional<int32_t> next_id();
    // A piece, or nothing when the answer is over; valid until the next call.
    const std::string* next_piece();
    const float* next_logits();

    // Going back, keeping, forgetting.
    void rewind(int64_t count);
    void reset();
    void save(const std::string& path, const std::string& dtype);
    void load(const std::string& path);
    void attach(const ArchiveOptions& options);
    void detach() { executor_.detach(); }

    const Model& model() const { return *model_; }
    const Executor& executor() const { return executor_; }
    Reader& reader() { return reader_; }

private:
    // The last answer of a conversation: whether the id that ends it is in the session, and how
    // many tokens the session had behind it.
    struct Turn {
        std::optional<int32_t> ended;
        int64_t end = -1;
    };

    TokenIds catalyst_ids(std::string_view text) const;
    void check_catalyst(const TokenIds& ids) const;
    void prepare(FeedOptions& options);
    void begin(Feeding how, int64_t drop);
    void write(const TokenIds& ids, double to);
    void end();
    void abandon();
    std::string known_text(bool plain) const;
    void begin_text(const FeedOptions& options, bool alone);
    void write_text(std::string_view text, double to, bool last);
    void read_text(std::string_view text, const FeedOptions& options, bool alone);
    void check_answer(const GenerateOptions& options, bool has_prompt) const;
    void start_answer(const GenerateOptions& options, Moment begin, const TokenIds* prompt);
    std::string render(const std::vector<Message>& messages, bool plain, bool& alone) const;
    Answer& answer();
    std::string end_text();
    Json notes() const;

    std::shared_ptr<Model> model_;
    Executor executor_;
    Reader reader_;
    std::optional<int64_t> seed_;
    Passage passage_;
    std::unique_ptr<Answer> answer_;
    Turn turn_;
    std::optional<std::string> catalyst_text_;  // as it was given, for a saved state

    // The present feed.
    FeedOptions options_;
    std::unique_ptr<FollowingText> text_;
    bool feeding_ = false;  // piece by piece
    bool takes_ids_ = false;
};

// What stands before and behind a user's message in an empty session. Throws Error (unsupported)
// where the artifact has no `turns`.
std::pair<std::string, std::string> user_turn(const Manifest& manifest);

// The content as the template takes it: without white space at both ends where it strips.
std::string stripped(const Turns& turns, const std::string& content);

}  // namespace lcc
