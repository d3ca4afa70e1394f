"""Train one model: `python -m domainbed.scripts.train --dataset EmojiStyles --algorithm AgrSum`."""

from domainbed.errors import run_script
from domainbed.training.train_command import keep_freed_memory, main

if __name__ == "__main__":
    keep_freed_memory()
    run_script(main)
