package lcc;

/** What went wrong in a call: a status of lcc.h, and a message for the user in one line. */
public final class LccException extends RuntimeException {
    private static final long serialVersionUID = 1;

    /** An argument or option that cannot be. */
    public static final int CONFIG = 1;
    /** The engine is missing, too old, or cannot run the programs here. */
    public static final int TARGET = 2;
    /** An artifact or state file is missing, damaged, newer, or another's. */
    public static final int ARTIFACT = 3;
    /** An archive is damaged, in use, or of another artifact. */
    public static final int ARCHIVE = 4;
    /** The cache cannot hold what was asked of it. */
    public static final int CACHE = 5;
    /** The system has no memory left. */
    public static final int MEMORY = 6;
    /** The session is serving another call. */
    public static final int BUSY = 7;
    /** This build of the library, or this artifact, cannot do it. */
    public static final int UNSUPPORTED = 8;
    /** {@link Model#checkGolden}: a number differs. */
    public static final int GOLDEN = 9;
    /** A mistake in lcc: please report it. */
    public static final int INTERNAL = 10;
    /** The artifact is machine code, and {@link ModelOptions#allowNative} is not set. */
    public static final int TRUST = 11;

    private final int status;

    LccException(int status, String message) {
        super(message);
        this.status = status;
    }

    /** For the native side. */
    LccException(int status, byte[] message) {
        this(status, Text.of(message));
    }

    /** One of the numbers above, or one that a newer library has. */
    public int status() {
        return status;
    }

    /** Such as "LCC_ERROR_CACHE". */
    public String statusName() {
        return Text.of(Native.statusName(status));
    }
}
