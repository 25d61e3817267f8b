// Cuts pieces at the matches of a pattern.
#pragma once

#include "text/matcher.h"

namespace lcc {

// What becomes of the matches, as the tokenizers library names it.
enum class Behaviour : std::uint32_t { REMOVED, ISOLATED, WITH_PREVIOUS, WITH_NEXT, CONTIGUOUS };

class SplitStage : public Matcher {
public:
    SplitStage(const Automaton& automaton, Behaviour behaviour, bool invert, Stage& next)
        : Matcher(automaton, next), behaviour_(behaviour), invert_(invert) {}

protected:
    void item(std::string_view part, bool match, bool first, bool last) override;
    void end() override;

private:
    void close();
    bool joins(bool hit) const;

    Behaviour behaviour_;
    bool invert_;
    bool open_ = false;    // a piece is not whole yet
    bool before_ = false;  // the item before was a match
};

// Puts a text in the place of each match.
class ReplaceStage : public Matcher {
public:
    ReplaceStage(const Automaton& automaton, std::string_view content, Growth& growth, Stage& next)
        : Matcher(automaton, next), content_(content), growth_(growth) {}

protected:
    void item(std::string_view part, bool match, bool first, bool last) override;
    void end() override { next_.put({}, true); }

private:
    std::string_view content_;
    Growth& growth_;
};

}  // namespace lcc
