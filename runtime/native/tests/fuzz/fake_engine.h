// An engine that computes nothing: outputs of programs are small numbers, the same every time.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "engines/engine.h"

namespace lcc::fuzz {

class FakeRunner : public Runner {
public:
    FakeRunner(const ProgramEntry& entry, uint64_t& state) : entry_(entry), state_(state) {}

    void bind(const std::string& tensor, const View& view) override { bound_[tensor] = view; }

    void run() override {
        for (const auto& [tensor, view] : bound_) {
            if (entry_.is_input(tensor)) {
                touch(view);
            } else {
                fill(view);
            }
        }
        for (const auto& [output, source] : entry_.updates) {
            const auto bound = bound_.find(source);
            if (bound_.count(output) == 0 && bound != bound_.end()) {
                fill(bound->second);
            }
        }
    }

private:
    uint64_t next(uint64_t end) {
        state_ = state_ * 6364136223846793005U + 1442695040888963407U;
        return (state_ >> 33) % end;
    }

    // What is bound must be memory of the session.
    void touch(const View& view) {
        const auto bytes = static_cast<const volatile char*>(view.data);
        for (size_t i = 0; i < view.bytes(); i += 64) {
            touched_ += bytes[i];
        }
        touched_ += view.bytes() == 0 ? 0 : bytes[view.bytes() - 1];
    }

    void fill(const View& view) {
        for (int64_t i = 0; i < view.count(); ++i) {
            switch (view.dtype) {
                case Dtype::float32: view.as<float>()[i] = static_cast<float>(next(64)) / 8; break;
                case Dtype::float16: view.as<uint16_t>()[i] = 0x3C00; break;
                case Dtype::int32: view.as<int32_t>()[i] = static_cast<int32_t>(next(16)); break;
                case Dtype::int64: view.as<int64_t>()[i] = static_cast<int64_t>(next(16)); break;
            }
        }
    }

    const ProgramEntry& entry_;
    uint64_t& state_;
    std::map<std::string, View> bound_;
    unsigned touched_ = 0;
};

class FakeEngine : public Engine {
public:
    explicit FakeEngine(const Manifest& manifest) : manifest_(manifest) {}

    std::unique_ptr<Runner> runner(const std::string& program) override {
        return std::make_unique<FakeRunner>(manifest_.programs.at(program), state_);
    }

private:
    const Manifest& manifest_;
    uint64_t state_ = 1;
};

}  // namespace lcc::fuzz
