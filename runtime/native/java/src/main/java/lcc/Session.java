package lcc;

import static java.util.Objects.requireNonNull;

import java.io.IOException;
import java.io.InputStream;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.function.Consumer;
import java.util.function.Predicate;
import java.util.function.Supplier;

/**
 * One text, read and continued, in a cache of fixed size. It serves one call at a time: a second
 * one, from another thread or from a callback, throws {@link LccException} with status BUSY and
 * changes nothing. {@link #cancel} and {@link #close} may be called at any time, from any thread.
 *
 * <p>An exception that a callback throws stops the call, and comes out of it. Whatever stops a
 * call, the session holds every token up to that point and can go on from there.
 */
public final class Session implements AutoCloseable {
    private static final int BLOCK = 1 << 16;

    private final Handle handle;
    private volatile boolean stopped;

    Session(long pointer) {
        handle = new Handle("session", pointer, Native::sessionClose);
    }

    public long feed(String text) {
        return feed(text, null);
    }

    /**
     * Reads a text of any length.
     *
     * @param options null = the defaults
     * @return how many of its tokens were read; {@link #stopped} says whether that is all
     * @throws LccException UNSUPPORTED: the artifact has no tokenizer tables: give ids; CONFIG: the
     *     text is empty; CACHE: more is protected than a cycle can keep
     */
    public long feed(String text, FeedOptions options) {
        return feed(Text.utf8(requireNonNull(text, "text")), null, options);
    }

    /** The same for token ids, which are read as they are. */
    public long feed(int[] ids, FeedOptions options) {
        return feed(null, requireNonNull(ids, "ids"), options);
    }

    /** The same for a text in UTF-8 that is never in memory as a whole. The stream stays open. */
    public long feed(InputStream text, FeedOptions options) throws IOException {
        FeedOptions how = options == null ? new FeedOptions() : options;
        long session = handle.take();
        try {
            byte[] block = new byte[BLOCK];
            Native.feedBegin(
                    session, how.flags(), Text.utf8(how.catalyst), how.catalystIds, how.progress);
            boolean goesOn = true;
            while (goesOn) {
                int count = block(text, block, session);
                goesOn = count >= 0 && Native.feedWrite(session, block, count);
            }
            return count(Native.feedEnd(session));
        } finally {
            handle.give();
        }
    }

    /** The same for ids that come in parts: they are read as all of them at once would be. */
    public long feed(Iterable<int[]> parts, FeedOptions options) {
        FeedOptions how = options == null ? new FeedOptions() : options;
        long session = handle.take();
        try {
            Iterator<int[]> rest = parts.iterator();
            Native.feedBegin(
                    session, how.flags(), Text.utf8(how.catalyst), how.catalystIds, how.progress);
            boolean goesOn = true;
            while (goesOn) {
                int[] part = part(rest, session);
                goesOn = part != null && Native.feedWriteIds(session, part);
            }
            return count(Native.feedEnd(session));
        } finally {
            handle.give();
        }
    }

    private static int[] part(Iterator<int[]> rest, long session) {
        try {
            return rest.hasNext() ? requireNonNull(rest.next(), "ids") : null;
        } catch (RuntimeException error) {
            Native.feedEnd(session); // what came before is part of the session
            throw error;
        }
    }

    private static int block(InputStream text, byte[] block, long session) throws IOException {
        try {
            return text.read(block);
        } catch (IOException | RuntimeException error) {
            Native.feedEnd(session); // what came before is part of the session
            throw error;
        }
    }

    private long feed(byte[] text, int[] ids, FeedOptions options) {
        FeedOptions how = options == null ? new FeedOptions() : options;
        byte[] catalyst = Text.utf8(how.catalyst);
        return handle.call(
                session ->
                        count(
                                Native.feed(
                                        session, text, ids, how.flags(), catalyst,
                                        how.catalystIds, how.progress)));
    }

    private long count(long read) {
        stopped = read < 0;
        return stopped ? -1 - read : read;
    }

    /** Whether the last feed or answer was stopped, by {@link #cancel} or by a callback. */
    public boolean stopped() {
        return stopped;
    }

    /** Reads ids, and gives the negative log likelihood of each; of a text's first one 1e30. */
    public float[] nll(int[] ids) {
        return handle.call(session -> Native.nll(session, requireNonNull(ids, "ids")));
    }

    /** What cycles look for; "beginning" = the first tokens of the text. */
    public void setCatalyst(String text) {
        byte[] bytes = Text.utf8(requireNonNull(text, "text"));
        handle.run(session -> Native.setCatalyst(session, bytes, null));
    }

    public void setCatalyst(int[] ids) {
        handle.run(session -> Native.setCatalyst(session, null, requireNonNull(ids, "ids")));
    }

    /** Runs a cycle now, where there is something to evict: e.g. before {@link #save}. */
    public void distill() {
        handle.run(Native::distill);
    }

    /** Called after each cycle; {@link #keptTokens} and {@link #stats} may be called in it. */
    public void onCycle(Consumer<Cycle> hook) {
        handle.run(session -> Native.onCycle(session, hook));
    }

    public Answer<String> generate(String prompt) {
        return generate(prompt, null);
    }

    /**
     * Reads a prompt now, and generates text as it is asked for. Any other call that moves the
     * session ends the answer.
     *
     * @param prompt null = go on from what was read
     * @param options null = the defaults
     */
    public Answer<String> generate(String prompt, GenerateOptions options) {
        return start(Text.utf8(prompt), null, null, options, this::piece);
    }

    /** The same with each piece handed to `listener`, which returns false to stop. */
    public void generate(String prompt, GenerateOptions options, Predicate<String> listener) {
        for (String piece : generate(prompt, options)) {
            if (!listener.test(piece)) {
                stopped = true;
                return;
            }
        }
    }

    /** The same in token ids, the one that ends the text included. */
    public Answer<Integer> generateIds(int[] prompt, GenerateOptions options) {
        return start(null, prompt, null, options, this::id);
    }

    /**
     * The answer to new messages, in the model's own chat template. They follow what the session
     * holds, the last answer included, which must not be given again.
     *
     * @throws LccException UNSUPPORTED: the artifact has no template or no tokenizer tables;
     *     CONFIG: a role that the template does not know, or a system message not the first
     */
    public Answer<String> chat(List<Message> messages, GenerateOptions options) {
        byte[][] pairs = new byte[2 * messages.size()][];
        for (int i = 0; i < messages.size(); i++) {
            pairs[2 * i] = Text.utf8z("role of message " + i, messages.get(i).role);
            pairs[2 * i + 1] = Text.utf8z("content of message " + i, messages.get(i).content);
        }
        return start(null, null, pairs, options, this::piece);
    }

    private <T> Answer<T> start(
            byte[] prompt, int[] ids, byte[][] messages, GenerateOptions options,
            Supplier<T> next) {
        GenerateOptions how = options == null ? new GenerateOptions() : options;
        stopped = !handle.call(session -> how.start(session, prompt, ids, messages));
        boolean begun = !stopped;
        return new Answer<>(() -> begun ? next.get() : null);
    }

    private String piece() {
        byte[] piece = handle.call(Native::generateNext);
        stopped = piece != null && piece.length == 0;
        return stopped ? null : Text.of(piece);
    }

    private Integer id() {
        int id = handle.call(Native::generateNextId);
        stopped = id == -2;
        return id < 0 ? null : (Integer) id;
    }

    /** The logits of the token after the last one, one for each id. */
    public float[] nextLogits() {
        return handle.call(Native::nextLogits);
    }

    /** Takes back the newest tokens; CACHE: some of them were read before the last cycle. */
    public void rewind(long count) {
        handle.run(session -> Native.rewind(session, count));
    }

    /** Forgets everything that was read, and empties the archive of it. */
    public void reset() {
        handle.run(Native::reset);
    }

    public void save(String path) {
        save(path, null);
    }

    /**
     * Writes what the session holds to a file, which Python's runtime reads, too.
     *
     * @param dtype of keys and values, "float32" or "float16"; null = as the cache has them
     */
    public void save(String path, String dtype) {
        byte[] file = Text.utf8z("path", requireNonNull(path, "path"));
        handle.run(session -> Native.save(session, file, Text.utf8z("dtype", dtype)));
    }

    /** Goes on from a saved state, made here or by Python. */
    public void load(String path) {
        byte[] file = Text.utf8z("path", requireNonNull(path, "path"));
        handle.run(session -> Native.load(session, file));
    }

    /** Opens an archive for an empty session, as {@link SessionOptions} does. */
    public void attachArchive(String path, String dtype, long limit) {
        byte[] file = Text.utf8z("path", requireNonNull(path, "path"));
        handle.run(
                session ->
                        Native.archiveAttach(session, file, Text.utf8z("dtype", dtype), limit));
    }

    /** Closes the archive: the session goes on without one. */
    public void detachArchive() {
        handle.run(Native::archiveDetach);
    }

    /** Times, counts and bytes until now. */
    public Stats stats() {
        return handle.call(
                session -> {
                    long[] whole = new long[Stats.WHOLE];
                    double[] real = new double[Stats.REAL];
                    byte[] archiveStopped = Native.stats(session, whole, real);
                    return new Stats(real, whole, Text.of(archiveStopped));
                });
    }

    /** For each KV head of a layer, the token positions of the entries that it holds, in order. */
    public long[][] keptTokens(int layer) {
        return handle.call(
                session -> {
                    long[] heads = new long[1];
                    long[] all = Native.keptTokens(session, layer, heads);
                    long[][] rows = new long[(int) heads[0]][];
                    for (int i = 0; i < rows.length; i++) {
                        int used = all.length / rows.length;
                        rows[i] = Arrays.copyOfRange(all, i * used, (i + 1) * used);
                    }
                    return rows;
                });
    }

    /** Stops the call that is being served after the present step; else nothing happens. */
    public void cancel() {
        handle.run(Native::cancel);
    }

    /** Ends the session. A call that is being served is cancelled, and frees it when it ends. */
    @Override
    public void close() {
        handle.close(Native::cancel);
    }
}
