package lcc;

import static java.util.Objects.requireNonNull;

/**
 * An artifact that was opened: weights, programs and tokenizer, for any number of threads.
 *
 * <pre>{@code
 * try (Model model = Model.open("book.lcc", new ModelOptions().engineLibrary("libonnxruntime.so"));
 *         Session session = model.session()) {
 *     session.feed(text);
 *     for (String piece : session.generate("Who is the narrator?")) {
 *         System.out.print(piece);
 *     }
 * }
 * }</pre>
 */
public final class Model implements AutoCloseable {
    private final Handle handle;

    private Model(long pointer) {
        handle = new Handle("model", pointer, Native::modelClose);
    }

    /**
     * Reads and verifies an artifact, loads its weights and all of its programs.
     *
     * @param path the artifact's folder
     * @param options null = the defaults
     * @throws LccException ARTIFACT: missing, damaged or newer than the library; TARGET: the engine
     *     is not there or cannot run it; CONFIG: an option that cannot be
     */
    public static Model open(String path, ModelOptions options) {
        ModelOptions how = options == null ? new ModelOptions() : options;
        return new Model(
                Native.modelOpen(
                        Text.utf8z("path", requireNonNull(path, "path")),
                        Text.utf8z("engineLibrary", how.engineLibrary),
                        Text.utf8z("target", how.target),
                        how.threads,
                        how.mapped,
                        how.verifySizesOnly,
                        how.allowNative));
    }

    public static Model open(String path) {
        return open(path, null);
    }

    /** What is known of the model. */
    public ModelInfo info() {
        return handle.call(model -> {
            long[] counts = new long[9];
            double[] seconds = new double[1];
            return new ModelInfo(Native.modelInfo(model, counts, seconds), counts, seconds[0]);
        });
    }

    /** A new session with the sizes that were compiled, and no archive. */
    public Session session() {
        return session(null);
    }

    /**
     * A new session: its buffers are allocated now, once. It may outlive the model's close.
     *
     * @param options null = the defaults
     * @throws LccException CACHE: a size above the compiled one; ARCHIVE: the archive is damaged,
     *     in use, or of another artifact; CONFIG; UNSUPPORTED
     */
    public Session session(SessionOptions options) {
        SessionOptions how = options == null ? new SessionOptions() : options;
        long[] sizes = {how.capacity, how.budget, how.chunkSize, how.seed};
        return handle.call(
                model ->
                        new Session(
                                Native.sessionOpen(
                                        model,
                                        sizes,
                                        Text.utf8z("archive", how.archive),
                                        Text.utf8z("archiveDtype", how.archiveDtype),
                                        how.archiveLimit)));
    }

    /** The token ids of a text, without the special tokens that begin one. */
    public int[] encode(String text) {
        return encode(text, false);
    }

    /**
     * The same; where `plain`, control tokens in the text are read as plain text.
     *
     * @throws LccException UNSUPPORTED: the artifact has no tokenizer tables
     */
    public int[] encode(String text, boolean plain) {
        return handle.call(
                model -> Native.encode(model, Text.utf8(requireNonNull(text, "text")), plain));
    }

    /** The text of ids, without control tokens. */
    public String decode(int... ids) {
        return handle.call(model -> Text.of(Native.decode(model, requireNonNull(ids, "ids"))));
    }

    /**
     * The text of others with its control tokens between marks, so that they are read as plain text
     * within a text of one's own: such as a question between the texts of {@link #userTurn}.
     *
     * @throws LccException UNSUPPORTED: the artifact has no tokenizer tables
     */
    public String mark(String text) {
        byte[] bytes = Text.utf8(requireNonNull(text, "text"));
        return handle.call(model -> Text.of(Native.mark(model, bytes)));
    }

    /**
     * What stands before and behind a user's message in an empty session, for a message that is read
     * in parts: feed the first text and a document, then generate from a question and the second
     * text, both without prefix.
     *
     * @throws LccException UNSUPPORTED: the artifact has no regular template
     */
    public String[] userTurn() {
        byte[][] texts = handle.call(Native::userTurn);
        return new String[] {Text.of(texts[0]), Text.of(texts[1])};
    }

    /**
     * Reads what golden.json says, in a session of its own, and compares what comes out.
     *
     * @throws LccException GOLDEN: the message names the first number that differs
     */
    public void checkGolden() {
        handle.run(Native::checkGolden);
    }

    /** Safe at any time; sessions keep what they need. */
    @Override
    public void close() {
        handle.close(model -> {});
    }
}
