"""The engines: each runs signatures of one version folder.

An engine is anything with these two methods:

    run(signature, inputs, outputs)   signature: str, inputs: alias -> array, outputs: aliases; returns alias -> array.
                                      Called from many threads at a time, with inputs that `check_arrays` has passed.
                                      Raises StatusError when the graph refuses its inputs.
    close()                           called once, when no request runs.
"""
