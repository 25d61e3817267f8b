package lcc;

/** A moment of a session; times in seconds, cycles are part of the time they happened in. */
public final class Stats {
    /** Numbers that the native side fills. */
    static final int REAL = 6;
    static final int WHOLE = 16;

    /** Of the model and of this session's buffers. */
    public final double loadSeconds;
    /** Read as input. */
    public final long prefillTokens;
    public final double prefillSeconds;
    /** Generated after the first of each answer. */
    public final long decodeTokens;
    public final double decodeSeconds;
    /** Of the last answer; -1 = there was none. */
    public final double firstTokenSeconds;
    public final long cycles;
    public final double cycleSeconds;
    public final long recalls;
    public final double recallSeconds;
    /** Entries that the last prompt brought back; -1 = no recall. */
    public final long recalled;
    /** Of the text, fed and generated. */
    public final long tokens;
    /** Entries per KV head held now. */
    public final long used;
    /** Newest tokens that {@link Session#rewind} can take back. */
    public final long rewindable;
    /** Of this session. */
    public final long capacity;
    public final long budget;
    public final long chunkSize;
    /** Of all buffers: it never changes. */
    public final long cacheBytes;
    /** Of them in use: what {@link Session#save} writes. */
    public final long heldBytes;
    /** Tokens in the archive; -1 = there is none. */
    public final long archiveRows;
    public final long archiveBytes;
    /** Most memory the process ever had; -1 = the system does not say. */
    public final long peakRssBytes;
    /** Why nothing more is archived; null = it is. */
    public final String archiveStopped;

    Stats(double[] real, long[] whole, String archiveStopped) {
        loadSeconds = real[0];
        prefillSeconds = real[1];
        decodeSeconds = real[2];
        firstTokenSeconds = real[3];
        cycleSeconds = real[4];
        recallSeconds = real[5];
        prefillTokens = whole[0];
        decodeTokens = whole[1];
        cycles = whole[2];
        recalls = whole[3];
        recalled = whole[4];
        tokens = whole[5];
        used = whole[6];
        rewindable = whole[7];
        capacity = whole[8];
        budget = whole[9];
        chunkSize = whole[10];
        cacheBytes = whole[11];
        heldBytes = whole[12];
        archiveRows = whole[13];
        archiveBytes = whole[14];
        peakRssBytes = whole[15];
        this.archiveStopped = archiveStopped;
    }
}
