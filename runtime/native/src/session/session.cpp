#include "session/session.h"

#include <algorithm>

#include "core/error.h"

namespace lcc {

namespace {

constexpr size_t KNOWN_TOKENS = 64;         // newest ones that stand for a text that is not known
constexpr size_t PART = 1 << 16;            // bytes of a text that are tokenized at once

}  // namespace

Session::Session(std::shared_ptr<Model> model, const SessionOptions& options)
    : model_(std::move(model)),
      executor_(model_->manifest, lowered(model_->manifest, options.sizes), *model_->engine),
      reader_(executor_, model_->load_seconds), seed_(options.seed) {
    if (seed_ && !model_->manifest.policy_has_seed) {
        throw config_error("seed is " + std::to_string(*seed_) + ", but policy \"" +
                           model_->manifest.policy + "\" draws no numbers");
    }
    if (options.archive) {
        attach(*options.archive);
    }
    reset();
}

// Options whose texts have become ids, checked before anything is read.
void Session::prepare(FeedOptions& options) {
    if (options.catalyst_text) {
        options.how.catalyst = catalyst_ids(*options.catalyst_text);
    } else if (options.how.catalyst) {
        check_catalyst(*options.how.catalyst);
    }
}

void Session::begin(Feeding how, int64_t drop) {
    answer_.reset();
    turn_ = Turn();
    if (drop > 0) {
        reader_.rewind(drop);
    }
    reader_.begin(std::move(how));
}

// Ids of a feed that has begun.
void Session::write(const TokenIds& ids, double to) {
    try {
        reader_.write(ids, to);
    } catch (...) {
        abandon();
        throw;
    }
}

void Session::end() {
    try {
        reader_.end();
    } catch (...) {
        abandon();
        throw;
    }
    feeding_ = false;
}

void Session::abandon() {
    feeding_ = false;
    text_.reset();
    reader_.abandon();
}

// The end of what the session holds, as text: as it was read, else as its tokens say it. For a text
// whose control tokens are letters: what stands behind the last one that is a token.
std::string Session::known_text(bool plain) const {
    if (reader_.tokens() == 0 || model_->tokenizer == nullptr) {
        return "";
    }
    if (!plain && passage_.tokens == reader_.tokens() && !passage_.text.empty()) {
        return passage_.text;
    }
    const TokenIds newest = reader_.newest();
    size_t first = newest.size() > KNOWN_TOKENS ? newest.size() - KNOWN_TOKENS : 0;
    for (size_t i = first; plain && i < newest.size(); ++i) {
        first = model_->tokenizer->is_special(newest[i]) ? i + 1 : first;
    }
    return model_->tokenizer->decode(
        TokenIds(newest.begin() + static_cast<ptrdiff_t>(first), newest.end()), true);
}

// A text as it stands behind the text before it, or, `alone`, by itself.
void Session::begin_text(const FeedOptions& options, bool alone) {
    const Tokenizer& tokenizer = model_->text();
    const Reading how = options.plain ? Reading::PLAIN : Reading::MARKED;
    text_ = std::make_unique<FollowingText>(tokenizer, how,
                                            alone ? "" : known_text(options.plain));
}

// The feed begins when it is known how the texts join.
void Session::write_text(std::string_view text, double to, bool last) {
    const bool enough = text_->add(text);
    if (!text_->joined() && !enough && !last) {
        return;
    }
    TokenIds first;
    if (!text_->joined()) {
        const int64_t drop = text_->join(reader_.newest(), reader_.rewindable());
        if (options_.prefix && reader_.tokens() == drop) {
            first = model_->manifest.text.prefix;
        }
        begin(options_.how, drop);
    }
    const TokenIds ids = text_->ids(last);
    for (int32_t id : ids) {
        if (id >= model_->manifest.vocab_size) {
            abandon();
            throw config_error("text: token " + std::to_string(id) + ", the model knows 0 to " +
                               std::to_string(model_->manifest.vocab_size - 1) +
                               "; compile it with its own tokenizer, or leave that token out");
        }
    }
    first.insert(first.end(), ids.begin(), ids.end());
    write(first, to);
    if (last) {
        end();
        passage_ = {std::string(text_->end()), reader_.tokens()};
        text_.reset();
    }
}

// A whole text, a part at a time, so that a book takes no more memory than a page.
void Session::read_text(std::string_view text, const FeedOptions& options, bool alone) {
    options_ = options;
    begin_text(options, alone);
    for (size_t place = 0; place < text.size() || place == 0; place += PART) {
        const size_t next = std::min(text.size(), place + PART);
        write_text(text.substr(place, PART),
                   static_cast<double>(next) / static_cast<double>(std::max<size_t>(1, text.size())),
                   next == text.size());
        if (next == text.size()) {
            break;
        }
    }
}

void Session::feed_text(std::string_view text, FeedOptions options) {
    prepare(options);
    if (text.empty()) {
        throw config_error("text is empty; give it at least one token");
    }
    read_text(text, options, false);
}

void Session::feed_ids(const TokenIds& ids, FeedOptions options) {
    prepare(options);
    if (ids.empty()) {
        throw config_error("ids is empty; give it at least one token");
    }
    model_->check_ids(ids.data(), ids.size(), "ids");
    begin(options.how, 0);
    write(ids, 1);
    end();
}

void Session::feed_begin(FeedOptions options) {
    prepare(options);
    options_ = std::move(options);
    text_.reset();
    takes_ids_ = false;
    feeding_ = true;
}

void Session::feed_write_text(std::string_view text) {
    model_->text();
    if (takes_ids_) {
        throw config_error("a piece of text in a feed of ids; begin another feed for it");
    }
    if (text_ == nullptr) {
        begin_text(options_, false);
    }
    write_text(text, 0, false);
}

void Session::feed_write_ids(const TokenIds& ids) {
    if (text_ != nullptr) {
        throw config_error("ids in a feed of text; begin another feed for them");
    }
    model_->check_ids(ids.data(), ids.size(), "ids");
    if (!takes_ids_) {
        takes_ids_ = true;
        begin(options_.how, 0);
    }
    write(ids, 0);
}

void Session::feed_end() {
    if (text_ != nullptr) {
        write_text("", 1, true);
    } else if (takes_ids_) {
        end();
    }
    feeding_ = false;
}

std::vector<float> Session::nll(const TokenIds& ids) {
    std::vector<float> found;
    FeedOptions options;
    options.how.nll = &found;
    feed_ids(ids, options);
    found.erase(found.begin(), found.end() - static_cast<ptrdiff_t>(ids.size()));
    return found;
}

// The ids of a catalyst; none = the beginning of the text, known when a cycle runs.
TokenIds Session::catalyst_ids(std::string_view text) const {
    TokenIds ids;
    if (text != BEGINNING_CATALYST) {
        ids = model_->text().encode(text);
        if (ids.empty()) {
            throw config_error("catalyst is empty; give it at least one token");
        }
    }
    check_catalyst(ids);
    return ids;
}

void Session::check_catalyst(const TokenIds& ids) const {
    const Manifest& manifest = model_->manifest;
    if (!executor_.reads_catalyst()) {
        throw config_error("policy \"" + manifest.policy + "\" reads no catalyst prompt" +
                           (manifest.has_heads ? ", for it goes by retaining heads" : ""));
    }
    model_->check_ids(ids.data(), ids.size(), "catalyst");
    const int64_t limit = executor_.sizes().catalyst_size;
    if (static_cast<int64_t>(ids.size()) > limit) {
        throw cache_error("the catalyst prompt has " + std::to_string(ids.size()) +
                          " tokens, catalyst_size is " + std::to_string(limit) +
                          "; shorten it, or compile with a larger --catalyst-size");
    }
}

void Session::set_catalyst_text(std::string_view text) {
    Catalyst catalyst;
    catalyst.ids = catalyst_ids(text);
    catalyst.beginning = catalyst.ids.empty() ? static_cast<int64_t>(BEGINNING_TOKENS) : 0;
    reader_.catalyst = catalyst;
    catalyst_text_ = std::string(text);
}

void Session::set_catalyst_ids(const TokenIds& ids) {
    if (ids.empty()) {
        throw config_error("catalyst is empty; give it at least one token");
    }
    check_catalyst(ids);
    reader_.catalyst = Catalyst{ids, 0};
    catalyst_text_.reset();
}

void Session::distill() {
    answer_.reset();
    reader_.distill();
}

void Session::rewind(int64_t count) {
    answer_.reset();
    turn_ = Turn();
    reader_.rewind(count);
}

void Session::reset() {
    answer_.reset();
    turn_ = Turn();
    passage_ = Passage();
    feeding_ = false;
    reader_.reset();
    if (seed_) {
        executor_.set_number("seed", *seed_);
    }
}

void Session::attach(const ArchiveOptions& options) {
    if (reader_.tokens() != 0) {
        throw cache_error("an archive begins with a text; reset the session first");
    }
    const Manifest& manifest = model_->manifest;
    if (manifest.schedule.recall.empty()) {
        throw unsupported("this artifact has no archive: policy " + manifest.policy + " for " +
                          manifest.target + "; wanted one compiled with --policy consensus for " +
                          "onnxruntime:cpu or tvm:cpu, of a model whose full layers have no " +
                          "windows and no ALiBi");
    }
    executor_.attach(open_archive(manifest, options));
}

}  // namespace lcc
