// Steps without a pattern.
#pragma once

#include <string>

#include "text/stage.h"

namespace lcc {

// Puts a text in the place of one byte.
class ReplaceByteStage : public Passing {
public:
    ReplaceByteStage(char byte, std::string_view content, Growth& growth, Stage& next)
        : Passing(next), byte_(byte), content_(content), growth_(growth) {}

    void put(std::string_view text, bool ends) override;

private:
    char byte_;
    std::string_view content_;
    Growth& growth_;
    std::string written_;
};

// Puts a text in front of each piece: always, unless it begins with that, or only where it begins
// the whole text.
class PrefixStage : public Passing {
public:
    enum When : std::uint32_t { ALWAYS, UNLESS_THERE, FIRST_UNLESS_THERE };

    PrefixStage(std::uint32_t when, std::string_view content, Growth& growth, Stage& next)
        : Passing(next), when_(when), content_(content), growth_(growth) {}

    void put(std::string_view text, bool ends) override;
    void token(std::uint32_t id) override;
    void restart() override;

private:
    bool decide(bool ends);

    std::uint32_t when_;
    std::string_view content_;
    Growth& growth_;
    std::string kept_;       // the beginning of a piece
    bool decided_ = false;   // of the present piece
    bool first_ = true;      // the piece begins the text
};

// Takes the white space at the ends of pieces away.
class StripStage : public Passing {
public:
    StripStage(const Tables& tables, bool left, bool right, Stage& next)
        : Passing(next), tables_(tables), left_(left), right_(right) {}

    void put(std::string_view text, bool ends) override;

private:
    const Tables& tables_;
    bool left_, right_;
    bool begun_ = false;  // what is not white space has come
    std::string kept_;    // white space that may be the end
};

}  // namespace lcc
