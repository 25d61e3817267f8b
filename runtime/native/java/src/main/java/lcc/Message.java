package lcc;

import static java.util.Objects.requireNonNull;

/** A message of a conversation. */
public final class Message {
    /** "system", "user" or "assistant". */
    public final String role;

    public final String content;

    public Message(String role, String content) {
        this.role = requireNonNull(role, "role");
        this.content = requireNonNull(content, "content");
    }

    public static Message user(String content) {
        return new Message("user", content);
    }

    public static Message system(String content) {
        return new Message("system", content);
    }
}
