"""Import before paddle: keeps its start-up chatter off the terminal, and what it says of SIGTERM."""

import os
import signal
import threading
import warnings

os.environ.setdefault("GLOG_minloglevel", "2")
warnings.filterwarnings("ignore", message="No ccache found")
warnings.filterwarnings("ignore", message="Tensor do not have 'place' interface")

import paddle  # noqa: E402, F401 now that it is quiet

if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)
