package lcc;

import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/** Strings to bytes in UTF-8 and back. Null stays null. */
final class Text {
    private Text() {}

    static byte[] utf8(String text) {
        if (text == null) {
            return null;
        }
        try {
            ByteBuffer bytes = StandardCharsets.UTF_8.newEncoder().encode(CharBuffer.wrap(text));
            return Arrays.copyOf(bytes.array(), bytes.limit());
        } catch (CharacterCodingException error) {
            throw new LccException(
                    LccException.CONFIG,
                    "text of " + text.length() + " chars has half of a surrogate pair, which no"
                            + " UTF-8 has; wanted whole characters");
        }
    }

    /** For texts that end with a zero byte in C. */
    static byte[] utf8z(String what, String text) {
        if (text != null && text.indexOf('\0') >= 0) {
            throw new LccException(
                    LccException.CONFIG,
                    what + " has a zero character at " + text.indexOf('\0') + "; leave it out");
        }
        return utf8(text);
    }

    static String of(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }
}
