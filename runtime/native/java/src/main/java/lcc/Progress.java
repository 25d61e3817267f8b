package lcc;

/** How far a feed has come. */
public final class Progress {
    /** Tokens read by this feed. */
    public final long tokens;
    /** Of the text, 0 to 1; 0 where the end is not known yet. */
    public final double fraction;
    /** Entries per KV head held now. */
    public final long used;
    /** Of this feed so far. */
    public final long cycles;
    /** Since it began. */
    public final double seconds;

    Progress(long tokens, double fraction, long used, long cycles, double seconds) {
        this.tokens = tokens;
        this.fraction = fraction;
        this.used = used;
        this.cycles = cycles;
        this.seconds = seconds;
    }
}
