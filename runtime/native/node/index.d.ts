/** Numbers of lcc.h; a newer library may have more. */
export const status: Readonly<
  Record<
    | 'CONFIG' | 'TARGET' | 'ARTIFACT' | 'ARCHIVE' | 'CACHE' | 'MEMORY' | 'BUSY' | 'UNSUPPORTED'
    | 'GOLDEN' | 'INTERNAL' | 'TRUST',
    number
  >
>;

/** What went wrong in a call; `message` is for the user, in one line. */
export class LccError extends Error {
  readonly status: number;
}

/** Of the native library. */
export function version(): string;
/** Of the artifacts that it reads. */
export function formatVersion(): number;

export interface ModelOptions {
  /** liblcc; not given: what the variable LCC_LIBRARY names, else the system's search. */
  library?: string;
  /** libonnxruntime, 1.22 or newer; not given: LCC_ONNXRUNTIME, else the system's search. */
  engineLibrary?: string;
  /** Of those that it was compiled for; not given: the first that runs here. */
  target?: string;
  /** Of the engine; not given: as many as there are cores. */
  threads?: number;
  /** Leave the weights in their file: for a model larger than the memory. */
  mapped?: boolean;
  /** Compare the sizes of files only, not their sha256. */
  verifySizesOnly?: boolean;
  /** Let machine code of the artifact run: what targets of TVM are made of. */
  allowNative?: boolean;
}

export interface ModelInfo {
  name: string;
  architecture: string;
  target: string;
  policy: string;
  precision: string;
  /** 64 hex digits: the same = the same artifact, file by file. */
  fingerprint: string;
  vocabSize: number;
  /** That attend. */
  layers: number;
  /** Slots per KV head, entries that a cycle keeps, most tokens of a step: as compiled. */
  capacity: number;
  budget: number;
  chunkSize: number;
  /** False: compiled without tokenizer tables; give ids. */
  knowsText: boolean;
  /** False: no `chat`. */
  knowsChat: boolean;
  readsCatalyst: boolean;
  hasArchive: boolean;
  loadSeconds: number;
}

export interface SessionOptions {
  /** Fewer than compiled; not given: as compiled. */
  capacity?: number;
  budget?: number;
  chunkSize?: number;
  /** Of the numbers that policy "random" draws. */
  seed?: number;
  /** A file that takes what cycles evict; a prompt brings back what it asks for. */
  archive?: string;
  archiveDtype?: 'float16' | 'float32' | 'int8';
  /** Most bytes of the archive, beyond which the oldest rows go. */
  archiveLimit?: number;
}

export class Model {
  private constructor();
  /** Reads and verifies an artifact, loads its weights and programs, on a thread of its own. */
  static open(path: string, options?: ModelOptions): Promise<Model>;
  info(): ModelInfo;
  session(options?: SessionOptions): Session;
  /** `plain`: control tokens in the text are read as plain text. */
  encode(text: string, options?: { plain?: boolean }): Int32Array;
  decode(ids: ArrayLike<number>): string;
  /**
   * The text of others with its control tokens between marks, so that they are read as plain text
   * within a text of one's own: such as a question between the texts of `userTurn`.
   */
  mark(text: string): string;
  /**
   * What stands before and behind a user's message in an empty session, for a message that is read
   * in parts: feed `before` and a document, then generate from a question and `after`, both with
   * `prefix: false`.
   */
  userTurn(): { before: string; after: string };
  /** Reads what golden.json says; LccError with status GOLDEN where a number differs. */
  checkGolden(): Promise<void>;
  /** Safe at any time; sessions keep what they need. */
  close(): void;
}

export interface Progress {
  /** Read by this feed. */
  tokens: number;
  /** Of the text, 0 to 1. */
  fraction: number;
  /** Entries per KV head held now. */
  used: number;
  cycles: number;
  seconds: number;
}

export interface Cycle {
  /** Read before it. */
  tokens: number;
  usedBefore: number;
  usedAfter: number;
  seconds: number;
}

export interface FeedOptions {
  /** Never evict anything read up to the end of this text. */
  protect?: boolean;
  /** The text ends here and a question follows. */
  last?: boolean;
  /** Begin an empty session with the ids that begin a text; not given: true. */
  prefix?: boolean;
  /** Control tokens in the text are read as plain text. */
  plain?: boolean;
  /** For the cycles of this call only. */
  catalyst?: string | ArrayLike<number>;
  /** Called after every step; returning false stops. */
  progress?: (now: Progress) => unknown;
}

/** What is not given is as generation_config.json of the model says. */
export interface GenerateOptions {
  maxNewTokens?: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  /** 0 or more: the same answer every time. */
  seed?: number;
  /** Texts that end the answer and are not given out, besides the model's own. */
  stop?: string | string[];
  /** Ids that end the answer, in place of the model's own. */
  ends?: ArrayLike<number>;
  /** Bring back from the archive what the prompt asks for; not given: true. */
  recall?: boolean;
  prefix?: boolean;
  plain?: boolean;
}

export interface Message {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

/** Times in seconds; -1 = there is none. */
export interface Stats {
  loadSeconds: number;
  prefillTokens: number;
  prefillSeconds: number;
  decodeTokens: number;
  decodeSeconds: number;
  firstTokenSeconds: number;
  cycles: number;
  cycleSeconds: number;
  recalls: number;
  recallSeconds: number;
  recalled: number;
  tokens: number;
  used: number;
  rewindable: number;
  capacity: number;
  budget: number;
  chunkSize: number;
  cacheBytes: number;
  heldBytes: number;
  archiveRows: number;
  archiveBytes: number;
  archiveStopped: string | null;
  peakRssBytes: number;
}

/** Of a text, or of ids; not both in one stream. */
export type Piece = Uint8Array | string | Int32Array | number[];

/**
 * One text, read and continued, in a cache of fixed size. Long calls run on a thread of their own,
 * and the event loop goes on. A session serves one call at a time: a second one throws LccError
 * with status BUSY, also from a callback; cancel and close may be called at any time.
 */
export class Session {
  private constructor();
  /** Whether the last feed or answer was stopped, by cancel() or by a callback. */
  readonly stopped: boolean;
  /** How many tokens were read. Ids are read as they are. */
  feed(text: string | ArrayLike<number>, options?: FeedOptions): Promise<number>;
  /**
   * The same for a text that is never in memory as a whole: a file's stream, in UTF-8; or for ids
   * that come in parts (arrays that are no Uint8Array).
   */
  feedStream(
    source: AsyncIterable<Piece> | Iterable<Piece>,
    options?: FeedOptions,
  ): Promise<number>;
  /** Reads ids, and gives the negative log likelihood of each; of a text's first one 1e30. */
  nll(ids: ArrayLike<number>): Promise<Float32Array>;
  /** What cycles look for; "beginning" = the first tokens of the text. */
  setCatalyst(catalyst: string | ArrayLike<number>): void;
  /** Runs a cycle now, where there is something to evict. */
  distill(): Promise<void>;
  /** Called after each cycle; null = not. */
  onCycle(hook: ((cycle: Cycle) => unknown) | null): void;
  /** Reads the prompt now; null = go on. Pieces of text, each at least one whole character. */
  generate(
    prompt?: string | ArrayLike<number> | null,
    options?: GenerateOptions,
  ): AsyncGenerator<string, void>;
  /** The same in ids, the one that ends the text included. */
  generateIds(
    prompt?: string | ArrayLike<number> | null,
    options?: GenerateOptions,
  ): AsyncGenerator<number, void>;
  /** The answer to new messages, in the model's chat template; without the last answer. */
  chat(messages: Message[], options?: GenerateOptions): AsyncGenerator<string, void>;
  nextLogits(): Float32Array;
  rewind(count: number): Promise<void>;
  reset(): Promise<void>;
  save(path: string, options?: { dtype?: 'float32' | 'float16' | null }): Promise<void>;
  load(path: string): Promise<void>;
  attachArchive(path: string, options?: { dtype?: string | null; limit?: number }): void;
  detachArchive(): void;
  stats(): Stats;
  /** For each KV head of a layer, the token positions of the entries that it holds. */
  keptTokens(layer: number): number[][];
  /** Stops the call that is being served after the present step. */
  cancel(): void;
  /** Ends the session. A call that is being served is cancelled. */
  close(): void;
}
