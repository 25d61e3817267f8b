package lcc;

import java.util.function.LongConsumer;
import java.util.function.LongFunction;

/**
 * A pointer of the native library. It is freed when it is closed and no call uses it any more, so
 * that closing is safe at any time: from another thread, or from a callback.
 */
final class Handle {
    private final String what;
    private final LongConsumer free;
    private long pointer;
    private int users;
    private boolean closed;

    Handle(String what, long pointer, LongConsumer free) {
        this.what = what;
        this.pointer = pointer;
        this.free = free;
    }

    <T> T call(LongFunction<T> function) {
        long held = take();
        try {
            return function.apply(held);
        } finally {
            give();
        }
    }

    void run(LongConsumer function) {
        call(held -> {
            function.accept(held);
            return null;
        });
    }

    /** Runs `stop` where a call is being served, and closes. Closing twice does nothing. */
    void close(LongConsumer stop) {
        synchronized (this) {
            if (closed) {
                return;
            }
            closed = true;
            users++;
        }
        try {
            stop.accept(pointer);
        } finally {
            give();
        }
    }

    synchronized long take() {
        if (closed) {
            throw new IllegalStateException("the " + what + " is closed; open another one");
        }
        users++;
        return pointer;
    }

    synchronized void give() {
        users--;
        if (closed && users == 0 && pointer != 0) {
            free.accept(pointer);
            pointer = 0;
        }
    }
}
