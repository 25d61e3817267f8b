package lcc;

import java.util.function.BiConsumer;

/** The library itself. */
public final class Lcc {
    public static final int LOG_DEBUG = 0;
    public static final int LOG_INFO = 1;
    public static final int LOG_WARNING = 2;
    public static final int LOG_ERROR = 3;

    private Lcc() {}

    /** The version of the native library, such as "0.2.0". */
    public static String version() {
        return Text.of(Native.version());
    }

    /** The format version of the artifacts that it reads. */
    public static int formatVersion() {
        return Native.formatVersion();
    }

    /**
     * Where messages of this level and above go: one place for the whole process. It may be called
     * from any thread. Null, which is the default: nowhere.
     */
    public static void log(BiConsumer<Integer, String> log, int level) {
        Native.setLog(log, level);
    }
}
