// Model and Session over lcc.h. Never compiled: it was written without a Swift compiler.
import CLcc

/// What went wrong in a call: a status of lcc.h, and a message for the user in one line.
public struct LccError: Error, CustomStringConvertible {
    public let status: lcc_status
    public let message: String
    public var description: String { message }
}

/// Throws where a status is an error; true where the call was stopped by `cancel` or a callback.
@discardableResult
private func check(_ status: lcc_status) throws -> Bool {
    if Int(status) > LCC_OK && Int(status) < LCC_DONE {
        throw LccError(status: status, message: String(cString: lcc_error_message()))
    }
    return Int(status) == LCC_STOPPED
}

/// Runs a body with a C string, or with nil.
private func withText<Result>(
    _ text: String?, _ body: (UnsafePointer<CChar>?) throws -> Result
) rethrows -> Result {
    guard let text = text else { return try body(nil) }
    return try text.withCString(body)
}

/// An artifact that was opened: weights, programs and tokenizer, for any number of threads.
public final class Model: @unchecked Sendable {
    let handle: OpaquePointer

    /// - Parameter engineLibrary: libonnxruntime; nil = the environment's, else the system's search.
    public init(
        path: String, engineLibrary: String? = nil, threads: Int32 = 0, mapped: Bool = false,
        allowNative: Bool = false
    ) throws {
        var opened: OpaquePointer?
        var options = lcc_model_options()
        lcc_model_options_init(&options)
        options.threads = threads
        options.mapped = mapped ? 1 : 0
        options.allow_native = allowNative ? 1 : 0
        try withText(engineLibrary) { library in
            options.engine_library = library
            try check(lcc_model_open(path, &options, &opened))
        }
        handle = opened!
    }

    /// Reads what golden.json says, and compares what comes out.
    public func checkGolden() throws {
        try check(lcc_check_golden(handle))
    }

    deinit { lcc_model_close(handle) }
}

/// How an answer is made; what is nil is as the model's generation_config.json says.
public struct GenerateOptions: Sendable {
    public var maxNewTokens: Int64?
    public var temperature: Double?
    public var topK: Int64?
    public var topP: Double?
    public var seed: Int64?

    public init(
        maxNewTokens: Int64? = nil, temperature: Double? = nil, topK: Int64? = nil,
        topP: Double? = nil, seed: Int64? = nil
    ) {
        self.maxNewTokens = maxNewTokens
        self.temperature = temperature
        self.topK = topK
        self.topP = topP
        self.seed = seed
    }

    var native: lcc_generate_options {
        var options = lcc_generate_options()
        lcc_generate_options_init(&options)
        options.max_new_tokens = maxNewTokens ?? -1
        options.temperature = temperature ?? -1
        options.top_k = topK ?? -1
        options.top_p = topP ?? -1
        options.seed = seed ?? -1
        return options
    }
}

/// One text, read and continued, in a cache of fixed size. It serves one call at a time; `cancel`
/// may be called from any thread.
public final class Session: @unchecked Sendable {
    private let handle: OpaquePointer

    /// - Parameter archive: a file that takes what cycles evict; nil = what is evicted is gone.
    public init(_ model: Model, archive: String? = nil) throws {
        var opened: OpaquePointer?
        var options = lcc_session_options()
        lcc_session_options_init(&options)
        try withText(archive) { path in
            options.archive_path = path
            try check(lcc_session_open(model.handle, &options, &opened))
        }
        handle = opened!
    }

    /// Reads a text of any length. `progress` gets the fraction that was read, and returns false to
    /// stop. Returns how many tokens were read.
    @discardableResult
    public func feed(_ text: String, progress: ((Double) -> Bool)? = nil) throws -> Int {
        var options = lcc_feed_options()
        lcc_feed_options_init(&options)
        var read = 0
        var listener = progress
        let utf8 = Array(text.utf8CString)
        try withUnsafeMutablePointer(to: &listener) { pointer in
            options.user = UnsafeMutableRawPointer(pointer)
            if progress != nil {
                options.progress = { user, now in
                    let told = user!.assumingMemoryBound(to: ((Double) -> Bool)?.self)
                    return told.pointee!(now!.pointee.fraction) ? 0 : 1
                }
            }
            try check(lcc_feed(handle, utf8, utf8.count - 1, &options, &read))
        }
        return read
    }

    /// Generates, and hands over each piece of text, which is at least one whole character. The
    /// callback returns false to stop. A prompt that is nil goes on from what was read.
    public func generate(
        _ prompt: String?, options: GenerateOptions = GenerateOptions(),
        onPiece: (String) throws -> Bool
    ) throws {
        var how = options.native
        let status: lcc_status
        if let prompt = prompt {
            let utf8 = Array(prompt.utf8CString)
            status = lcc_generate_start(handle, utf8, utf8.count - 1, &how)
        } else {
            status = lcc_generate_start(handle, nil, 0, &how)
        }
        if try check(status) { return }
        while let piece = try next(), try onPiece(piece) {}
    }

    /// The same as a sequence that does not block its reader; leaving the loop stops it.
    public func generate(
        _ prompt: String?, options: GenerateOptions = GenerateOptions()
    ) -> AsyncThrowingStream<String, Error> {
        AsyncThrowingStream { stream in
            let work = Task.detached {
                do {
                    try self.generate(prompt, options: options) { piece in
                        stream.yield(piece)
                        return !Task.isCancelled
                    }
                    stream.finish()
                } catch {
                    stream.finish(throwing: error)
                }
            }
            stream.onTermination = { _ in work.cancel() }
        }
    }

    /// The next piece of the answer; nil = it is over, or was stopped.
    private func next() throws -> String? {
        var piece: UnsafePointer<CChar>?
        var length = 0
        let status = lcc_generate_next(handle, &piece, &length)
        try check(status)
        guard Int(status) == LCC_OK, let start = piece else { return nil }
        let bytes = UnsafeRawBufferPointer(start: start, count: length)
        return String(decoding: bytes, as: UTF8.self)
    }

    public func save(_ path: String) throws { try check(lcc_save(handle, path, nil)) }

    public func load(_ path: String) throws { try check(lcc_load(handle, path)) }

    public func reset() throws { try check(lcc_reset(handle)) }

    public func rewind(_ count: Int64) throws { try check(lcc_rewind(handle, count)) }

    /// Stops the call that is being served after the present step. Any thread.
    public func cancel() { lcc_cancel(handle) }

    deinit { lcc_session_close(handle) }
}
