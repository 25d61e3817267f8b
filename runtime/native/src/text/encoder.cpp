#include "text/encoder.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "text/added_stage.h"
#include "text/form_stage.h"
#include "text/marked_stage.h"
#include "text/simple_stages.h"
#include "text/split_stage.h"
#include "text/utf8.h"

namespace lcc {
namespace {

constexpr std::size_t PART = 1 << 14;  // bytes that go through the stages at once

// Bytes of whole characters at the beginning.
std::size_t valid_size(std::string_view bytes) {
    std::size_t size = 0;
    while (size < bytes.size()) {
        if (static_cast<unsigned char>(bytes[size]) < 0x80) {
            ++size;
            continue;
        }
        const Utf8Head head = utf8_head(bytes.substr(size));
        if (!head.valid) {
            break;
        }
        size += head.size;
    }
    return size;
}

}  // namespace

void Growth::refuse() {
    throw artifact_error("text.bin: its steps make a text more than " + std::to_string(MOST) +
                         " times as long; copy the artifact anew");
}

std::unique_ptr<Stage> make_stage(const Tables& tables, const Step& step, Growth& growth,
                                  Stage& next) {
    switch (step.op) {
        case Op::FORM:
            return std::make_unique<FormStage>(tables.forms[step.a], growth, next);
        case Op::REPLACE:
            return std::make_unique<ReplaceStage>(tables.automata[step.a], step.content, growth,
                                                  next);
        case Op::REPLACE_BYTE:
            return std::make_unique<ReplaceByteStage>(static_cast<char>(step.a), step.content,
                                                      growth, next);
        case Op::PREFIX:
            return std::make_unique<PrefixStage>(step.a, step.content, growth, next);
        case Op::STRIP:
            return std::make_unique<StripStage>(tables, step.a != 0, step.b != 0, next);
        case Op::SPLIT:
            break;
    }
    return std::make_unique<SplitStage>(tables.automata[step.a], static_cast<Behaviour>(step.b),
                                        step.c != 0, next);
}

TextEncoder::TextEncoder(const Tokenizer& tokenizer, Reading how)
    : tokenizer_(tokenizer), merge_(tokenizer.tables()), first_(&merge_) {
    const Tables& tables = tokenizer.tables();
    add_steps(tables.pre_tokenizer);
    if (how != Reading::LETTERS) {
        add_tree(tables.trees[1]);
    }
    add_steps(tables.normalizer);
    if (how != Reading::LETTERS) {
        add_tree(tables.trees[0]);
    }
    auto spell = [this](std::string_view text) {
        const auto own = tokenizer_.spell(text);
        ids_->insert(ids_->end(), own.begin(), own.end());
    };
    if (how == Reading::PLAIN && !tables.trees[2].empty()) {
        stages_.push_back(std::make_unique<AddedStage>(tables, tables.trees[2], *first_, spell));
        first_ = stages_.back().get();
    }
    if (how == Reading::MARKED) {
        stages_.push_back(std::make_unique<MarkedStage>(*first_, spell));
        first_ = stages_.back().get();
    }
}

void TextEncoder::add_steps(const std::vector<Step>& steps) {
    for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
        stages_.push_back(make_stage(tokenizer_.tables(), *step, growth_, *first_));
        first_ = stages_.back().get();
    }
}

void TextEncoder::add_tree(const Tree& tree) {
    if (!tree.empty()) {
        stages_.push_back(std::make_unique<AddedStage>(tokenizer_.tables(), tree, *first_));
        first_ = stages_.back().get();
    }
}

void TextEncoder::feed(std::string_view bytes, std::vector<std::int32_t>& ids) {
    ids_ = &ids;
    merge_.write_to(ids);
    growth_.given(bytes.size());
    while (!kept_.empty() && !bytes.empty()) {  // a character that was cut, byte by byte
        kept_ += bytes[0];
        const Utf8Head head = utf8_head(kept_);
        if (!head.valid && !head.incomplete) {  // the last byte does not belong to it
            first_->put(REPLACEMENT, false);
            kept_.clear();
            break;
        }
        bytes.remove_prefix(1);
        if (head.valid) {
            first_->put(kept_, false);
            kept_.clear();
        }
    }
    while (!bytes.empty()) {
        const std::string_view part = bytes.substr(0, PART);
        const std::size_t size = valid_size(part);
        if (size > 0) {
            first_->put(part.substr(0, size), false);
            bytes.remove_prefix(size);
            continue;
        }
        const Utf8Head head = utf8_head(bytes);
        if (head.incomplete) {
            kept_ = bytes;
            return;
        }
        first_->put(REPLACEMENT, false);
        bytes.remove_prefix(head.size);
    }
}

void TextEncoder::finish(std::vector<std::int32_t>& ids) {
    ids_ = &ids;
    merge_.write_to(ids);
    if (!kept_.empty()) {
        first_->put(REPLACEMENT, false);
        kept_.clear();
    }
    first_->put({}, true);
    first_->restart();
}

}  // namespace lcc
