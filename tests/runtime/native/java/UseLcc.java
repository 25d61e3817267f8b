import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.SequenceInputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import lcc.Answer;
import lcc.FeedOptions;
import lcc.GenerateOptions;
import lcc.Lcc;
import lcc.LccException;
import lcc.Message;
import lcc.Model;
import lcc.ModelOptions;
import lcc.Session;
import lcc.SessionOptions;
import lcc.Stats;

/** Uses every class of the package, and prints what comes out as `name<TAB>value`, a line each. */
final class UseLcc {
    private static final GenerateOptions SIX = new GenerateOptions().maxNewTokens(6).ends();

    private UseLcc() {}

    public static void main(String[] arguments) throws Exception {
        String folder = arguments[0];
        String engine = arguments[1];
        byte[] bytes = Files.readAllBytes(Paths.get(arguments[2]));
        String text = new String(bytes, StandardCharsets.UTF_8);
        String scratch = arguments[3];
        ModelOptions how = new ModelOptions().engineLibrary(engine).threads(1);
        List<String> log = Collections.synchronizedList(new ArrayList<>());
        Lcc.log((level, line) -> log.add(line), Lcc.LOG_DEBUG);
        show("version", Lcc.version() + " " + Lcc.formatVersion());
        refused("missing", () -> Model.open(scratch + "/nothing.lcc", how));
        Model model = Model.open(folder, how);
        show("policy", model.info().policy);
        show("capacity", model.info().capacity);
        show("turn", Arrays.toString(model.userTurn()).replace("\n", "\\n"));
        model.checkGolden();
        show("golden", "reproduced");
        int[] ids = model.encode(text);
        show("ids", Arrays.toString(ids));
        show("decoded", model.decode(ids).equals(text));
        show("marked", model.mark("a\u00e9<|im_end|>").equals("a\u00e9\uf8f0<|im_end|>\uf8f1"));
        read(model, ids, text);
        write(model, text, scratch);
        stop(model, ids);
        archive(model, ids, scratch);
        Session session = model.session();
        model.close();
        model.close();
        show("after the model's close", session.feed(ids, null));
        session.close();
        refused("after close", () -> session.feed(ids, null));
        refused("closed model", model::info);
        refused("half of a pair", () -> {
            try (Model other = Model.open(folder, how)) {
                other.encode("\ud83d");
            }
        });
        Lcc.log(null, Lcc.LOG_DEBUG);
        show("logged", log.size());
    }

    private static void read(Model model, int[] ids, String text) throws IOException {
        try (Session session = model.session()) {
            List<Long> cycles = new ArrayList<>();
            double[] fraction = new double[1];
            session.onCycle(cycle -> {
                cycles.add(cycle.tokens);
                show("kept in a cycle", session.keptTokens(0)[0].length == cycle.usedAfter);
            });
            FeedOptions how = new FeedOptions().progress(now -> (fraction[0] = now.fraction) >= 0);
            show("read", session.feed(ids, how) + " " + fraction[0] + " " + session.stopped());
            show("kept", Arrays.deepToString(session.keptTokens(1)));
            Stats stats = session.stats();
            show("stats", stats.tokens + " " + stats.cycles + " " + stats.capacity);
            show("cycles", cycles.size() == stats.cycles);
            float[] logits = session.nextLogits();
            int best = 0;
            for (int i = 0; i < logits.length; i++) {
                best = logits[i] > logits[best] ? i : best;
            }
            List<Integer> next = new ArrayList<>();
            for (int id : session.generateIds(null, SIX)) {
                next.add(id);
            }
            show("next", next);
            show("best", best == next.get(0));
            session.reset();
            InputStream stream = new ByteArrayInputStream(text.getBytes(StandardCharsets.UTF_8));
            show("stream", session.feed(stream, new FeedOptions().prefix(false)));
            show("stream next", all(session.generateIds(null, SIX)));
            session.reset();
            List<int[]> parts = Arrays.asList(
                    Arrays.copyOf(ids, 40), Arrays.copyOfRange(ids, 40, ids.length));
            show("parts", session.feed(parts, null));
            show("parts next", all(session.generateIds(null, SIX)));
            session.reset();
            parts = Arrays.asList(ids, null);
            List<int[]> none = parts;
            refused("parts fail", () -> session.feed(none, null));
            show("parts kept", session.stats().tokens);
            session.reset();
            byte[] begin = text.substring(0, 60).getBytes(StandardCharsets.UTF_8);
            InputStream broken = new SequenceInputStream(
                    new ByteArrayInputStream(begin),
                    new InputStream() {
                        @Override
                        public int read() throws IOException {
                            throw new IOException("from the stream");
                        }
                    });
            refused("stream fails", () -> session.feed(broken, null));
            show("stream kept", session.stats().tokens >= 60 && session.feed(text) > 60);
            stream = new ByteArrayInputStream(text.getBytes(StandardCharsets.UTF_8));
            FeedOptions two = new FeedOptions().progress(now -> now.tokens < 30);
            long some = session.feed(stream, two);
            show("stream stopped", session.stopped() + " " + (some > 0 && some < ids.length));
            session.reset();
            show("nll", session.nll(Arrays.copyOf(ids, 5)).length);
        }
    }

    private static void write(Model model, String text, String scratch) {
        try (Session session = model.session()) {
            session.feed(text);
            session.save(scratch + "/\u4e66 state");
            String answer = String.join("", all(session.generate("Who?", SIX)));
            show("answer", Arrays.toString(answer.getBytes(StandardCharsets.UTF_8)));
            session.load(scratch + "/\u4e66 state");
            StringBuilder pieces = new StringBuilder();
            session.generate("Who?", SIX, piece -> pieces.append(piece) != null);
            show("again", pieces.toString().equals(answer));
            session.load(scratch + "/\u4e66 state");
            int[] count = new int[1];
            session.generate("Who?", SIX, piece -> ++count[0] < 2);
            show("listener stopped", count[0] + " " + session.stopped());
            session.reset();
            List<Message> talk = new ArrayList<>();
            talk.add(Message.system("Be brief."));
            talk.add(Message.user("Who are you?"));
            String chat = String.join("", all(session.chat(talk, SIX)));
            show("chat", Arrays.toString(chat.getBytes(StandardCharsets.UTF_8)));
            refused("option", () -> session.generate("Who?", new GenerateOptions().topP(7)));
        }
    }

    private static void stop(Model model, int[] ids) throws Exception {
        try (Session session = model.session()) {
            CountDownLatch begun = new CountDownLatch(1);
            CountDownLatch cancelled = new CountDownLatch(1);
            Thread other = new Thread(() -> {
                await(begun);
                refused("busy", () -> session.feed(ids, null));
                session.cancel();
                cancelled.countDown();
            });
            other.start();
            long read = session.feed(ids, new FeedOptions().progress(now -> {
                begun.countDown();
                await(cancelled);
                return true;
            }));
            other.join();
            show("cancelled", session.stopped() + " " + (read > 0 && read < ids.length));
            show("goes on", session.feed(ids, null) == ids.length);
            refused("thrown", () -> session.feed(ids, new FeedOptions().progress(now -> {
                throw new IllegalArgumentException("from the listener");
            })));
            session.onCycle(cycle -> {
                throw new IllegalArgumentException("from the hook");
            });
            refused("thrown in a cycle", () -> session.feed(ids, null));
        }
        Session session = model.session();
        long read = session.feed(ids, new FeedOptions().progress(now -> {
            session.close();
            return true;
        }));
        show("closed in a callback", session.stopped() + " " + (read > 0 && read < ids.length));
    }

    private static void archive(Model model, int[] ids, String scratch) {
        SessionOptions how = new SessionOptions().archive(scratch + "/book.lccarchive");
        try (Session session = model.session(how)) {
            session.feed(ids, null);
            show("archived", session.stats().archiveRows > 0);
            refused("in use", () -> model.session(how));
        }
        try (Session session = model.session()) {
            show("no archive", session.stats().archiveRows);
            session.attachArchive(scratch + "/second.lccarchive", "int8", 0);
            session.feed(ids, null);
            session.detachArchive();
            show("detached", session.stats().archiveRows);
        }
    }

    private static <T> List<T> all(Answer<T> answer) {
        List<T> found = new ArrayList<>();
        answer.forEach(found::add);
        return found;
    }

    private interface Action {
        void run() throws Exception;
    }

    private static void refused(String name, Action call) {
        try {
            call.run();
            show(name, "no error");
        } catch (LccException error) {
            show(name, error.statusName() + ": " + error.getMessage());
        } catch (Exception error) {
            show(name, error.getClass().getSimpleName() + ": " + error.getMessage());
        }
    }

    private static void await(CountDownLatch latch) {
        try {
            latch.await();
        } catch (InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }

    private static synchronized void show(String name, Object value) {
        byte[] line = (name + "\t" + value + "\n").getBytes(StandardCharsets.UTF_8);
        System.out.write(line, 0, line.length);
        System.out.flush();
    }
}
