package lcc;

/** What a cycle did. */
public final class Cycle {
    /** Read before it. */
    public final long tokens;
    /** Entries per KV head before and after. */
    public final long usedBefore;
    public final long usedAfter;
    public final double seconds;

    Cycle(long tokens, long usedBefore, long usedAfter, double seconds) {
        this.tokens = tokens;
        this.usedBefore = usedBefore;
        this.usedAfter = usedAfter;
        this.seconds = seconds;
    }
}
