package lcc;

/** How a model is opened. */
public final class ModelOptions {
    String engineLibrary;
    String target;
    int threads;
    boolean mapped;
    boolean verifySizesOnly;
    boolean allowNative;

    /**
     * The engine's shared library: libonnxruntime, 1.22 or newer. Not given: what the environment
     * variable LCC_ONNXRUNTIME names, else the system's search for libonnxruntime.
     */
    public ModelOptions engineLibrary(String path) {
        engineLibrary = path;
        return this;
    }

    /** Which of the targets it was compiled for; not given: the first that runs here. */
    public ModelOptions target(String name) {
        target = name;
        return this;
    }

    /** Threads of the engine; 0, the default = as many as there are cores. */
    public ModelOptions threads(int count) {
        threads = count;
        return this;
    }

    /** Leave the weights in their file: for a model larger than the memory. A step takes longer. */
    public ModelOptions mapped(boolean yes) {
        mapped = yes;
        return this;
    }

    /** Compare the sizes of files only, not their sha256: for a package that is signed. */
    public ModelOptions verifySizesOnly(boolean yes) {
        verifySizesOnly = yes;
        return this;
    }

    /**
     * Let machine code of the artifact run in this process: what targets of TVM are made of. Only
     * where you trust whoever made it.
     */
    public ModelOptions allowNative(boolean yes) {
        allowNative = yes;
        return this;
    }
}
