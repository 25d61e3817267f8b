package lcc;

import java.util.function.Predicate;

/** How a text is read. */
public final class FeedOptions {
    boolean protect;
    boolean last;
    boolean prefix = true;
    boolean plain;
    String catalyst;
    int[] catalystIds;
    Predicate<Progress> progress;

    /** Never evict anything read up to the end of this text. */
    public FeedOptions protect(boolean yes) {
        protect = yes;
        return this;
    }

    /** The text ends here and a question follows: fewer recent entries are protected then. */
    public FeedOptions last(boolean yes) {
        last = yes;
        return this;
    }

    /** Begin an empty session with the ids that begin a text (default); ids never get them. */
    public FeedOptions prefix(boolean yes) {
        prefix = yes;
        return this;
    }

    /** Control tokens in the text, such as <|im_end|>, are read as plain text. */
    public FeedOptions plain(boolean yes) {
        plain = yes;
        return this;
    }

    /** What the cycles of this call look for; not given: the session's own. */
    public FeedOptions catalyst(String text) {
        catalyst = text;
        return this;
    }

    public FeedOptions catalyst(int... ids) {
        catalystIds = ids;
        return this;
    }

    /** Called after every step; returning false stops the feed. */
    public FeedOptions progress(Predicate<Progress> listener) {
        progress = listener;
        return this;
    }

    boolean[] flags() {
        return new boolean[] {protect, last, !prefix, plain};
    }
}
