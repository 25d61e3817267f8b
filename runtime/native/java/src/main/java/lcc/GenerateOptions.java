package lcc;

import java.util.Objects;

/**
 * How to generate. What is not given is as generation_config.json of the model says; where that
 * says nothing, the answer is greedy and ends when the model ends it.
 */
public final class GenerateOptions {
    private final long[] whole = {-1, -1, -1};
    private final double[] real = {-1, -1, -1, -1};
    private String[] stop = {};
    private int[] ends;
    private boolean recall = true;
    private boolean prefix = true;
    private boolean plain;

    public GenerateOptions maxNewTokens(long count) {
        whole[0] = count;
        return this;
    }

    /** Draw among the k most probable; 0 = all. */
    public GenerateOptions topK(long count) {
        whole[1] = count;
        return this;
    }

    /** 0 or more: the same answer every time. */
    public GenerateOptions seed(long value) {
        whole[2] = value;
        return this;
    }

    /** 0 = the most probable token. */
    public GenerateOptions temperature(double value) {
        real[0] = value;
        return this;
    }

    /** Draw among the fewest that have this probability together; 1 = all. */
    public GenerateOptions topP(double value) {
        real[1] = value;
        return this;
    }

    /** Draw among those that are this many times as probable as the best. */
    public GenerateOptions minP(double value) {
        real[2] = value;
        return this;
    }

    /** 1 = none. */
    public GenerateOptions repetitionPenalty(double value) {
        real[3] = value;
        return this;
    }

    /** Texts that end the answer and are not given out, besides the model's own. */
    public GenerateOptions stop(String... texts) {
        stop = texts.clone();
        return this;
    }

    /** Ids that end the answer, in place of the model's own; none = it never ends by itself. */
    public GenerateOptions ends(int... ids) {
        ends = ids.clone();
        return this;
    }

    /** Bring back from the archive what the prompt asks for (default). */
    public GenerateOptions recall(boolean yes) {
        recall = yes;
        return this;
    }

    /** As in {@link FeedOptions}. */
    public GenerateOptions prefix(boolean yes) {
        prefix = yes;
        return this;
    }

    /** Control tokens in the prompt or in the messages are read as plain text. */
    public GenerateOptions plain(boolean yes) {
        plain = yes;
        return this;
    }

    boolean start(long session, byte[] prompt, int[] ids, byte[][] messages) {
        byte[][] stops = new byte[stop.length][];
        for (int i = 0; i < stop.length; i++) {
            stops[i] = Text.utf8z("stop text " + i, Objects.requireNonNull(stop[i], "stop"));
        }
        boolean[] flags = {!recall, !prefix, plain};
        return Native.generateStart(
                session, prompt, ids, messages, whole, real, stops, ends, flags);
    }
}
