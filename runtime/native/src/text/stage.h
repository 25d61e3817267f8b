// The steps from text to token ids, as a chain that text flows through.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "text/growth.h"
#include "text/tables.h"

namespace lcc {

// Takes pieces of text, each in any number of parts, and hands on what it has decided. What it
// cannot decide yet it keeps: at most one piece, or one match of its pattern.
//
// All text is valid UTF-8, and parts end with whole characters. A piece of no text is none.
class Stage {
public:
    virtual ~Stage() = default;

    // More of the present piece; `ends`: it is whole now.
    virtual void put(std::string_view text, bool ends) = 0;

    // A token that was found in the text; stands between two pieces.
    virtual void token(std::uint32_t id) = 0;

    // What follows is a text of its own. Stands between two pieces.
    virtual void restart() = 0;
};

// A stage in front of another one.
class Passing : public Stage {
public:
    explicit Passing(Stage& next) : next_(next) {}

    void token(std::uint32_t id) override { next_.token(id); }
    void restart() override { next_.restart(); }

protected:
    Stage& next_;
};

// The stage of a step in front of another one. `tables` and `growth` must outlive it.
std::unique_ptr<Stage> make_stage(const Tables& tables, const Step& step, Growth& growth,
                                  Stage& next);

}  // namespace lcc
