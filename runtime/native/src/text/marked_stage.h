// Places of a text that are marked to be read as plain text, whatever control token stands there.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "text/stage.h"

namespace lcc {

// Letters of nobody's alphabet, U+F8F0 and U+F8F1: as the Python runtime marks such places.
constexpr std::string_view MARK_BEGIN = "\xEF\xA3\xB0", MARK_END = "\xEF\xA3\xB1";

// Spells what stands between two marks. The texts before and behind a mark are texts of their own.
class MarkedStage : public Passing {
public:
    using Spell = std::function<void(std::string_view)>;

    MarkedStage(Stage& next, Spell spell) : Passing(next), spell_(std::move(spell)) {}

    void put(std::string_view text, bool ends) override;

private:
    void mark(bool begins);
    void close();

    Spell spell_;
    std::string held_;     // behind a mark that begins a place
    bool inside_ = false;  // of such a place, if it ends
    bool open_ = false;    // a part of the text at hand was handed on
};

}  // namespace lcc
