// Tokens that are found in the text itself, such as <|im_end|>.
#pragma once

#include <functional>
#include <string>

#include "text/stage.h"

namespace lcc {

// Finds the longest added token at the first place where one begins, and goes on behind it.
class AddedStage : public Passing {
public:
    // Writes the ids of a control token that is read as plain text.
    using Spell = std::function<void(std::string_view)>;

    // With `spell`, what is found is not a token: it is spelled, and the texts before and behind it
    // are texts of their own.
    AddedStage(const Tables& tables, const Tree& tree, Stage& next, Spell spell = nullptr);

    void put(std::string_view text, bool ends) override;

private:
    enum class Found { NOTHING, TOKEN, UNDECIDED };

    std::size_t run(std::string_view text, bool ends);
    std::size_t next_root(std::string_view text, std::size_t place) const;
    Found longest(std::string_view text, bool ends, std::size_t& end, std::uint32_t& token) const;
    Found word(std::string_view text, bool ends, std::size_t end) const;
    void hit(std::string_view text, std::size_t end, std::uint32_t token);
    std::size_t certain(std::string_view text) const;
    bool is(std::string_view text, std::size_t place, Sort sort) const;
    void close(std::string_view rest);

    const Tables& tables_;
    const Tree& tree_;
    Spell spell_;
    int only_ = -1;        // the byte that all of them begin with
    bool strips_ = false;  // some take the white space in front of them

    std::string kept_;
    std::size_t done_ = 0;   // handed on up to here
    std::size_t place_ = 0;  // no token begins before
    bool open_ = false;      // a part of the text between two tokens was handed on
    bool skips_ = false;     // the token before takes the white space that follows
    bool letter_ = false;    // what was before the text at hand ends with a letter
};

}  // namespace lcc
