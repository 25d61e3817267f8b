package lcc;

import java.util.function.BiConsumer;
import java.util.function.Consumer;
import java.util.function.Predicate;

/**
 * The functions of liblcc, one to one. Texts are bytes in UTF-8: JNI's own strings are another
 * encoding. A status that is an error comes as {@link LccException}.
 *
 * <p>The library is {@code lcc_jni} on {@code java.library.path}, or the file that the system
 * property {@code lcc.jni} names.
 */
final class Native {
    static {
        String file = System.getProperty("lcc.jni");
        if (file != null) {
            System.load(file);
        } else {
            System.loadLibrary("lcc_jni");
        }
    }

    private Native() {}

    static native byte[] version();

    static native int formatVersion();

    static native byte[] statusName(int status);

    static native void setLog(BiConsumer<Integer, String> log, int level);

    static native long modelOpen(
            byte[] path, byte[] engine, byte[] target, int threads, boolean mapped, boolean sizes,
            boolean allowNative);

    static native void modelClose(long model);

    /** Fills counts with the nine whole numbers of lcc_model_info and seconds with its time. */
    static native byte[][] modelInfo(long model, long[] counts, double[] seconds);

    static native int[] encode(long model, byte[] text, boolean plain);

    static native byte[] decode(long model, int[] ids);

    static native byte[] mark(long model, byte[] text);

    static native void checkGolden(long model);

    static native byte[][] userTurn(long model);

    static native long sessionOpen(
            long model, long[] sizes, byte[] archive, byte[] archiveDtype, long archiveLimit);

    static native void sessionClose(long session);

    static native void cancel(long session);

    /**
     * Reads text or ids, of which one is null; returns how many tokens were read, or, where the
     * call was stopped, -1 minus that number. Flags: protect, last, no_prefix, plain.
     */
    static native long feed(
            long session, byte[] text, int[] ids, boolean[] flags, byte[] catalyst,
            int[] catalystIds, Predicate<Progress> progress);

    static native void feedBegin(
            long session, boolean[] flags, byte[] catalyst, int[] catalystIds,
            Predicate<Progress> progress);

    /** False: the feed was stopped. */
    static native boolean feedWrite(long session, byte[] bytes, int count);

    static native boolean feedWriteIds(long session, int[] ids);

    /** As feed. */
    static native long feedEnd(long session);

    static native float[] nll(long session, int[] ids);

    static native void setCatalyst(long session, byte[] text, int[] ids);

    static native void distill(long session);

    static native void onCycle(long session, Consumer<Cycle> hook);

    /**
     * Begins an answer: to a prompt in text or ids, to messages (role, content, role, content, ...)
     * or, where all three are null, to what was read. Whole: max_new_tokens, top_k, seed. Real:
     * temperature, top_p, min_p, repetition_penalty. Flags: no_recall, no_prefix, plain.
     * False: the reading of the prompt was stopped.
     */
    static native boolean generateStart(
            long session, byte[] prompt, int[] ids, byte[][] messages, long[] whole, double[] real,
            byte[][] stop, int[] ends, boolean[] flags);

    /** Null: the answer is over. Empty: it was stopped. */
    static native byte[] generateNext(long session);

    /** -1: the answer is over. -2: it was stopped. */
    static native int generateNextId(long session);

    static native float[] nextLogits(long session);

    static native void rewind(long session, long count);

    static native void reset(long session);

    static native void save(long session, byte[] path, byte[] dtype);

    static native void load(long session, byte[] path);

    static native void archiveAttach(long session, byte[] path, byte[] dtype, long limit);

    static native void archiveDetach(long session);

    /** Fills both with the numbers of lcc_session_stats in its order; returns archive_stopped. */
    static native byte[] stats(long session, long[] whole, double[] real);

    static native long[] keptTokens(long session, int layer, long[] heads);

    // Called by the native side, on the thread of the call that they belong to.

    private static boolean progress(
            Predicate<Progress> hook, long tokens, double fraction, long used, long cycles,
            double seconds) {
        return hook.test(new Progress(tokens, fraction, used, cycles, seconds));
    }

    private static void cycle(
            Consumer<Cycle> hook, long tokens, long before, long after, double seconds) {
        hook.accept(new Cycle(tokens, before, after, seconds));
    }

    private static void log(BiConsumer<Integer, String> hook, int level, byte[] message) {
        hook.accept(level, Text.of(message));
    }
}
