// An ONNX program, as it is checked before an engine sees it.

#include "core/error.h"
#include "engines/onnx_file.h"
#include "targets.h"

namespace lcc::fuzz {

std::string program(std::string_view data) {
    try {
        check_program(data, {{"weights.bin", {}}});
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

}  // namespace lcc::fuzz
