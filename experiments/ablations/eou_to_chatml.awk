# Writes DailyDialog's lines (turns that each end in `__eou__`) as ChatML, a blank line
# between two dialogues; the first speaker is the user.
{
    n = split($0, turns, /[ \t]*__eou__[ \t]*/)
    for (i = 1; i <= n; i++) {
        if (turns[i] == "") continue
        role = (i % 2 == 1) ? "user" : "assistant"
        printf "<|im_start|>%s\n%s<|im_end|>\n", role, turns[i]
    }
    print ""
}
