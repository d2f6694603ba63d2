"""The engines: each runs signatures of one version folder.

An engine is anything with these:

    name                                    `litert` or `tensorflow`.
    run(signature, inputs, outputs, call)   signature: str, inputs: alias -> array, outputs: aliases, call: a Call.
                                            Returns alias -> array, in memory of its own. Called from many threads at a
                                            time, with inputs that `check_arrays` has passed. Raises StatusError when
                                            the graph refuses its inputs, or when the call's time is over.
    close()                                 called once, when no request runs.
"""
