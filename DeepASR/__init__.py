"""Hybrid speech recognition. Importing `fluid` first lets scripts outside the environment say in one line how to run them.

Beside the scripts:

    audio, recordings, incoming, features       sound of files and of standard input, and mel energies of it
    preparing/, corpus, legacy                  recordings become a data set, which is read; the lists of 2018
    kaldi/                                      Kaldi's tables and transition models
    transforms, augmentation, reader            what the network sees
    sizes, model, network, building, newbob     the network, its Programs, its learning rate
    recogniser, opening, posteriors             weights with all that their use takes, and what they answer
    decoding/                                   from answers to words: lexicon, language model or grammar, graph, search
    forced_alignment, voice_activity            when words were said, when anything was
    listener, transcripts                       recognising while sound comes in; what is written of recordings
    metrics, report, pictures                   what is measured and shown
"""

import fluid  # noqa: F401
