"""`python -m nnunet_cli`."""

import sys

if __name__ == "__main__":
    # Python puts the current folder first on the path; files of strangers may lie in it
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        del sys.path[0]

    from nnunet_cli.main import main

    main()
