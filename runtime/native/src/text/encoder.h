// Text that comes in parts to token ids.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/merge_stage.h"
#include "text/stage.h"
#include "text/tokenizer.h"

namespace lcc {

// Gives the ids of the whole text, wherever its parts are cut, and keeps no more of it than is not
// decided yet. For one thread at a time; the tokenizer must outlive it.
class TextEncoder {
public:
    explicit TextEncoder(const Tokenizer& tokenizer, Reading how = Reading::TOKENS);

    // Appends the ids that are certain now. Parts may end inside a character.
    void feed(std::string_view bytes, std::vector<std::int32_t>& ids);

    // Appends the rest; what is fed then is another text.
    void finish(std::vector<std::int32_t>& ids);

private:
    void add_steps(const std::vector<Step>& steps);
    void add_tree(const Tree& tree);

    const Tokenizer& tokenizer_;
    Growth growth_;
    MergeStage merge_;
    std::vector<std::unique_ptr<Stage>> stages_;  // the last one first
    Stage* first_;
    std::vector<std::int32_t>* ids_ = nullptr;
    std::string kept_;  // the beginning of a character
};

}  // namespace lcc
