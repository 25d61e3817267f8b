// Where a pattern matches in a text that comes in parts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/stage.h"

namespace lcc {

// Cuts a piece into matches and what lies between them, from left to right. It keeps the text from
// the first place on at which it is not yet certain whether a match begins, or where it ends.
class Matcher : public Passing {
public:
    Matcher(const Automaton& automaton, Stage& next) : Passing(next), automaton_(automaton) {}

    void put(std::string_view text, bool ends) final;

protected:
    // A part of a match, or of what lies between; the first or the last one of it. A match comes in
    // one part.
    virtual void item(std::string_view part, bool match, bool first, bool last) = 0;
    // The piece is whole.
    virtual void end() = 0;

private:
    void scan(std::string_view text, bool ends);
    bool advance(std::string_view text, bool ends);
    void remember(std::string_view text);
    void between(std::string_view part, bool last);

    static constexpr std::size_t NOWHERE = static_cast<std::size_t>(-1);

    const Automaton& automaton_;
    std::string kept_;
    std::size_t gap_ = 0;     // what lies between the matches begins here
    std::size_t start_ = 0;   // the match that is tried begins here
    std::size_t place_ = 0;   // next character to read
    std::size_t found_ = NOWHERE;  // the match ends here, if no longer one is found
    std::uint32_t state_ = 1;
    bool open_ = false;  // a part of what lies between was handed on

    // States of a long try that led to nothing, by place: another try that comes to the same state
    // at the same place leads to nothing either. Without this, a million spaces take forever.
    std::vector<std::uint16_t> vain_;
    std::size_t vain_from_ = 0;
};

}  // namespace lcc
