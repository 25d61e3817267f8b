package lcc;

/** What is known of a model. */
public final class ModelInfo {
    public final String name;
    public final String architecture;
    /** That runs, such as "onnxruntime:cpu". */
    public final String target;
    /** What cycles keep, such as "consensus". */
    public final String policy;
    /** Of the weights: fp32, int8, int4 or given. */
    public final String precision;
    /** 64 hex digits: the same = the same artifact, file by file. */
    public final String fingerprint;
    /** Ids are 0 .. vocabSize-1. */
    public final int vocabSize;
    /** Layers that attend. */
    public final int layers;
    /** Slots per KV head, entries that a cycle keeps, and most tokens of a step, as compiled. */
    public final long capacity;
    public final long budget;
    public final long chunkSize;
    /** False: it was compiled without tokenizer tables; give ids. */
    public final boolean knowsText;
    /** False: no {@link Session#chat}. */
    public final boolean knowsChat;
    public final boolean readsCatalyst;
    public final boolean hasArchive;
    /** That opening took. */
    public final double loadSeconds;

    ModelInfo(byte[][] texts, long[] counts, double seconds) {
        name = Text.of(texts[0]);
        architecture = Text.of(texts[1]);
        target = Text.of(texts[2]);
        policy = Text.of(texts[3]);
        precision = Text.of(texts[4]);
        fingerprint = Text.of(texts[5]);
        vocabSize = (int) counts[0];
        layers = (int) counts[1];
        capacity = counts[2];
        budget = counts[3];
        chunkSize = counts[4];
        knowsText = counts[5] != 0;
        knowsChat = counts[6] != 0;
        readsCatalyst = counts[7] != 0;
        hasArchive = counts[8] != 0;
        loadSeconds = seconds;
    }
}
