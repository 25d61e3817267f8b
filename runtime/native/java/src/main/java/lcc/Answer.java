package lcc;

import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.function.Supplier;

/**
 * What a session generates, piece by piece: a piece is computed when it is asked for. It can be
 * walked through once. Where {@link Session#cancel} stopped it, {@link Session#stopped} is true,
 * and asking for more goes on with it.
 *
 * @param <T> String: text, at least one whole character; Integer: token ids, that which ends the
 *     text included
 */
public final class Answer<T> implements Iterator<T>, Iterable<T> {
    private final Supplier<T> source;
    private T next;

    Answer(Supplier<T> source) {
        this.source = source;
    }

    @Override
    public boolean hasNext() {
        if (next == null) {
            next = source.get();
        }
        return next != null;
    }

    @Override
    public T next() {
        if (!hasNext()) {
            throw new NoSuchElementException("the answer is over, or was stopped");
        }
        T piece = next;
        next = null;
        return piece;
    }

    @Override
    public Iterator<T> iterator() {
        return this;
    }
}
