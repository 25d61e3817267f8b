// Sessions of one model, each on a thread of its own, while another thread cancels and asks:
//
//     threads ARTIFACT ENGINE SESSIONS NEW_TOKENS ID...
//
// Each session reads the ids and generates; it goes on where it was stopped, so the tokens, one line
// for each session, are those of a session that nobody disturbs. Built with the thread sanitizer it
// shows that the library shares nothing that it should not.

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "lcc.h"

namespace {

std::atomic<int> stopped{0}, refused{0};  // calls that were cancelled; calls that had to wait
std::atomic<int> least{1 << 30};          // the fewest that were cancelled on one thread
thread_local int stopped_here = 0;
std::atomic<int> failures{0};

bool fine(const char* what, lcc_status status) {
    if (status == LCC_OK || status == LCC_DONE) {
        return true;
    }
    std::fprintf(stderr, "%s: %s: %s\n", what, lcc_status_name(status), lcc_error_message());
    ++failures;
    return false;
}

// Whether the call has to be made once more.
bool again(lcc_status status) {
    stopped += status == LCC_STOPPED;
    stopped_here += status == LCC_STOPPED;
    refused += status == LCC_ERROR_BUSY;
    return status == LCC_STOPPED || status == LCC_ERROR_BUSY;
}

// An error on this thread, whose message no other thread may change.
bool own_message(const lcc_model* model, size_t number) {
    const int32_t id = -1 - static_cast<int32_t>(number);
    size_t length = 0;
    if (lcc_decode(model, &id, 1, nullptr, 0, &length) != LCC_ERROR_CONFIG) {
        return true;  // the artifact knows no text
    }
    std::this_thread::yield();
    return std::strstr(lcc_error_message(), std::to_string(id).c_str()) != nullptr;
}

void read_and_write(lcc_session* session, const std::vector<int32_t>& ids, int64_t count,
                    std::vector<int32_t>& found) {
    for (size_t place = 0; place < ids.size();) {
        size_t read = 0;
        const lcc_status status = lcc_feed_ids(session, ids.data() + place, ids.size() - place,
                                               nullptr, &read);
        place += read;
        if (!again(status) && !fine("lcc_feed_ids", status)) {
            return;
        }
    }
    lcc_generate_options how;
    lcc_generate_options_init(&how);
    how.max_new_tokens = count;
    how.temperature = 20;  // else a tiny model says few words, again and again
    how.seed = 5;
    how.ends_given = 1;  // nothing ends the answer but its length
    lcc_status status = LCC_OK;
    do {
        status = lcc_generate_start(session, nullptr, 0, &how);
    } while (again(status));
    while (status != LCC_DONE && fine("lcc_generate", status)) {
        int32_t id = 0;
        do {
            status = lcc_generate_next_id(session, &id);
        } while (again(status));
        if (status == LCC_OK) {
            found.push_back(id);
        }
    }
}

// Cancels one session after the other, and asks each how far it is, until all are done.
void disturb(const std::vector<lcc_session*>& sessions, const std::atomic<size_t>& done) {
    for (size_t i = 0; done < sessions.size(); i = (i + 1) % sessions.size()) {
        lcc_cancel(sessions[i]);
        lcc_session_stats stats;
        stats.size = sizeof stats;
        const lcc_status status = lcc_stats(sessions[i], &stats);
        if (status != LCC_ERROR_BUSY) {
            fine("lcc_stats", status);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

}  // namespace

int main(int count, char** values) {
    if (count < 6) {
        std::fprintf(stderr, "usage: threads ARTIFACT ENGINE SESSIONS NEW_TOKENS ID...\n");
        return 2;
    }
    const size_t total = std::strtoul(values[3], nullptr, 10);
    std::vector<int32_t> ids;
    for (int i = 5; i < count; ++i) {
        ids.push_back(std::atoi(values[i]));
    }
    lcc_model_options how;
    lcc_model_options_init(&how);
    how.engine_library = values[2];
    how.threads = 1;
    lcc_model* model = nullptr;
    if (!fine("lcc_model_open", lcc_model_open(values[1], &how, &model))) {
        return 1;
    }
    std::vector<lcc_session*> sessions(total, nullptr);
    std::vector<std::thread> threads;
    for (lcc_session*& session : sessions) {
        threads.emplace_back([model, &session] {
            fine("lcc_session_open", lcc_session_open(model, nullptr, &session));
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    if (failures != 0) {
        return 1;
    }
    threads.clear();
    std::vector<std::vector<int32_t>> found(total);
    std::atomic<size_t> done{0};
    for (size_t i = 0; i < total; ++i) {
        threads.emplace_back([&, i] {
            if (!own_message(model, i)) {
                std::fprintf(stderr, "the message is that of another thread\n");
                ++failures;
            }
            read_and_write(sessions[i], ids, std::atoll(values[4]), found[i]);
            for (int fewest = least; stopped_here < fewest;) {
                least.compare_exchange_weak(fewest, stopped_here);
            }
            ++done;
        });
    }
    threads.emplace_back([&] { disturb(sessions, done); });
    threads.emplace_back([&] {  // another model of the same folder comes and goes meanwhile
        lcc_model* other = nullptr;
        fine("lcc_model_open", lcc_model_open(values[1], &how, &other));
        lcc_model_close(other);
    });
    for (std::thread& thread : threads) {
        thread.join();
    }
    lcc_model_close(model);  // before its sessions: they keep what they need
    for (size_t i = 0; i < total; ++i) {
        lcc_session_close(sessions[i]);
        for (const int32_t id : found[i]) {
            std::printf("%d ", id);
        }
        std::printf("\n");
    }
    std::fprintf(stderr, "%d calls stopped, %d or more a session, %d refused\n", stopped.load(),
                 least.load(), refused.load());
    return failures == 0 ? 0 : 1;
}
