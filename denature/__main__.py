"""`python -m denature` and the `denature` command."""

import gc
import io
import os
import sys


def main() -> None:
    # Names of files and classes may hold what the terminal's or the pipe's encoding has not.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Importing torch makes objects by the hundred thousand, all of which stay, and at the usual 700
    # the collector looks through them over and over: 0.3 s of every command that needs torch.
    gc.set_threshold(10_000)
    from denature.cli.app import main as run

    code = run()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # gloo's threads outlive the objects they use when the interpreter is taken down: one exit
        # in three of a sharded run aborted. All is written and said by now.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    # The interpreter's last collection walks all of torch's modules, which takes 0.3 s of every
    # command, to free what the system takes back anyway.
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    main()
