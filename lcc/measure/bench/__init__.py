"""Speed and memory of artifacts and of other engines: `lcc bench`.

The parent process imports no engine. Everything that runs a model is a process of its own
(`lcc.measure.bench.child`), so that no engine has another's threads or memory.
"""
