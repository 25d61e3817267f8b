// Encodes or decodes what comes on standard input, for tests that compare it with a library.
//
//   encode_lines TABLES tokens|plain|letters [PIECE]    texts in, ids out
//   encode_lines TABLES shown|spelled [PIECE]           ids in, text without or with special tokens
//   encode_lines TABLES time FILE                       seconds, ids, resident memory
//   encode_lines TABLES open                            resident memory
//
// A text is its size (uint32) and its bytes; ids are their number and int32 each. PIECE: bytes that
// are fed at once, or -1 for pieces of any sizes; ids are decoded one by one where it is given.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "text/decoder.h"
#include "text/encoder.h"
#include "text/tokenizer.h"

namespace {

using Ids = std::vector<std::int32_t>;

bool read_frame(std::string& bytes, std::size_t unit) {
    std::uint32_t size = 0;
    if (std::fread(&size, sizeof size, 1, stdin) != 1) {
        return false;
    }
    bytes.resize(size * unit);
    return bytes.empty() || std::fread(bytes.data(), 1, bytes.size(), stdin) == bytes.size();
}

void write_frame(const void* data, std::size_t count, std::size_t unit) {
    const auto size = static_cast<std::uint32_t>(count);
    std::fwrite(&size, sizeof size, 1, stdout);
    std::fwrite(data, unit, count, stdout);
}

Ids encode(const lcc::Tokenizer& tokenizer, lcc::TextEncoder& encoder, lcc::Reading how,
           const std::string& text, long piece) {
    if (piece == 0) {
        return tokenizer.encode(text, how);
    }
    Ids ids;
    std::uint64_t state = text.size() + 1;
    for (std::size_t place = 0; place < text.size();) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        const std::size_t any = (state >> 33) % ((state >> 60) == 0 ? 5000 : 7);
        const std::size_t size = piece > 0 ? static_cast<std::size_t>(piece) : any;
        encoder.feed(std::string_view(text).substr(place, size), ids);
        place += size;
    }
    encoder.finish(ids);
    return ids;
}

long resident_kb() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.rfind("VmRSS:", 0) == 0) {
            return std::atol(line.c_str() + 6);
        }
    }
    return -1;
}

std::string decode(const lcc::Tokenizer& tokenizer, const Ids& ids, bool special, bool pieces) {
    if (!pieces) {
        return tokenizer.decode(ids, special);
    }
    lcc::TextDecoder decoder(tokenizer, special);
    std::string text;
    for (const std::int32_t id : ids) {
        text += decoder.add(id);
    }
    return text + decoder.end();
}

void time_file(const lcc::Tokenizer& tokenizer, const char* path) {
    std::ifstream file(path, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    const std::clock_t start = std::clock();  // of the processor: others may use the machine
    const Ids ids = tokenizer.encode(text);
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    std::printf("%.6f %zu %ld\n", seconds, ids.size(), resident_kb());
}

int run(int count, char** words) {
    const long before = resident_kb();
    const auto tokenizer = lcc::Tokenizer::open(words[1]);
    const std::string mode = words[2];
    if (mode == "open") {
        std::printf("%ld\n", resident_kb() - before);
        return 0;
    }
    if (mode == "time") {
        time_file(*tokenizer, words[3]);
        return 0;
    }
    const long piece = count > 3 ? std::atol(words[3]) : 0;
    std::string frame;
    if (mode == "shown" || mode == "spelled") {
        while (read_frame(frame, sizeof(std::int32_t))) {
            const auto* first = reinterpret_cast<const std::int32_t*>(frame.data());
            const Ids ids(first, first + frame.size() / sizeof(std::int32_t));
            const std::string text = decode(*tokenizer, ids, mode == "spelled", piece != 0);
            write_frame(text.data(), text.size(), 1);
        }
        return 0;
    }
    const auto how = mode == "plain"     ? lcc::Reading::PLAIN
                     : mode == "letters" ? lcc::Reading::LETTERS
                                         : lcc::Reading::TOKENS;
    lcc::TextEncoder encoder(*tokenizer, how);
    while (read_frame(frame, 1)) {
        const Ids ids = encode(*tokenizer, encoder, how, frame, piece);
        write_frame(ids.data(), ids.size(), sizeof(std::int32_t));
    }
    return 0;
}

}  // namespace

int main(int count, char** words) {
    if (count < 3) {
        std::fprintf(stderr, "usage: encode_lines TABLES MODE [PIECE or FILE]\n");
        return 2;
    }
    try {
        return run(count, words);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
