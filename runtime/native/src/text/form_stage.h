// Normal forms of Unicode, and lower case.
#pragma once

#include <string>
#include <vector>

#include "text/stage.h"

namespace lcc {

// Text changes only between two characters that nothing in front of them can change (boundaries):
// from one to the next it is taken apart, its marks are put in order, and it is put together.
class FormStage : public Passing {
public:
    FormStage(const FormTable& form, Growth& growth, Stage& next)
        : Passing(next), form_(form), growth_(growth) {}

    void put(std::string_view text, bool ends) override;

private:
    std::size_t run(std::string_view text, bool ends);
    bool boundary(std::uint32_t point) const;
    bool alone(std::uint32_t point) const;
    void change(std::string_view text);
    void take_apart(std::uint32_t point);
    void put_in_order();
    void put_together();
    std::uint32_t pair(std::uint32_t first, std::uint32_t second) const;
    std::uint32_t order(std::uint32_t point) const;

    const FormTable& form_;
    Growth& growth_;
    std::string kept_, written_;
    std::vector<std::uint32_t> points_;
};

}  // namespace lcc
