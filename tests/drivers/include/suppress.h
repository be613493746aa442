/* Part of the kit's static analysis: names the warnings of an analyser that is not used here. Nothing to declare. */
