// The last step: pieces of text become token ids.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "text/stage.h"

namespace lcc {

// Merges the units of a piece, bytes or letters, pair by pair, those that were learned first first.
class MergeStage : public Stage {
public:
    explicit MergeStage(const Tables& tables);

    // Where ids go from now on.
    void write_to(std::vector<std::int32_t>& ids) { ids_ = &ids; }

    void put(std::string_view text, bool ends) override;
    void token(std::uint32_t id) override { write(id); }
    void restart() override {}

private:
    // A word and its tokens, to be met again.
    struct Met {
        static constexpr std::size_t BYTES = 23, IDS = 8;

        std::array<char, BYTES> word{};
        std::uint8_t size = 0;
        std::uint8_t count = 0;
        std::array<std::int32_t, IDS> ids{};

        // Writes the tokens if it is this word.
        bool write_if(std::string_view text, std::vector<std::int32_t>& out) const;
    };
    struct Join {
        std::uint32_t left = NONE, right = NONE;
        bool joined = false;
    };
    static constexpr std::size_t JOINS_MET = 1024;

    void write(std::uint32_t id) { ids_->push_back(static_cast<std::int32_t>(id)); }
    void cut(std::string_view text, bool ends);
    bool joined(std::uint32_t left, std::uint32_t right);
    void finish_word(std::string_view text);
    void word(std::string_view text);
    void merge(std::string_view text, Met* known);
    void add_letter(std::string_view letter);
    void finish_units();
    void merge_few();
    void merge_many();
    Met* met(std::string_view text);

    const Tables& tables_;
    std::vector<std::int32_t>* ids_ = nullptr;
    std::string kept_;
    std::vector<std::uint32_t> units_, fresh_;
    bool unknown_ = false;  // the last unit was unknown
    std::array<std::uint32_t, 128> ascii_;  // unit of each letter; NONE = none
    std::vector<Met> met_;
    std::array<Join, JOINS_MET> joins_;
    std::size_t read_ = 0;  // bytes; a short text needs no memory for words met
};

}  // namespace lcc
