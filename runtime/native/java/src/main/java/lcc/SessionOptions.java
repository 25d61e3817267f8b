package lcc;

/** How a session is made. */
public final class SessionOptions {
    long capacity;
    long budget;
    long chunkSize;
    long seed = -1;
    String archive;
    String archiveDtype;
    long archiveLimit;

    /** Slots per KV head, fewer than compiled; 0, the default = as compiled. */
    public SessionOptions capacity(long slots) {
        capacity = slots;
        return this;
    }

    /** Entries that a cycle keeps, likewise. */
    public SessionOptions budget(long entries) {
        budget = entries;
        return this;
    }

    /** Tokens of one step, likewise. */
    public SessionOptions chunkSize(long tokens) {
        chunkSize = tokens;
        return this;
    }

    /** Of the numbers that policy "random" draws; -1, the default = as compiled. */
    public SessionOptions seed(long value) {
        seed = value;
        return this;
    }

    /** A file that takes what cycles evict; a prompt brings back what it asks for. */
    public SessionOptions archive(String path) {
        archive = path;
        return this;
    }

    /** Of keys and values in a new archive: float16 (default), float32 or int8. */
    public SessionOptions archiveDtype(String dtype) {
        archiveDtype = dtype;
        return this;
    }

    /** Most bytes of the archive, beyond which the oldest rows go; 0, the default = any. */
    public SessionOptions archiveLimit(long bytes) {
        archiveLimit = bytes;
        return this;
    }
}
