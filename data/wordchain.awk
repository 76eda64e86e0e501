# Writes lines of made-up words: awk -v n=1000 -v seed=1 -f wordchain.awk
#
# Each word is drawn from a list of 256 that belongs to the word before it, the first of the
# list most often (as r^-1.2), and the lists are drawn from a thousand words, the first of them
# most often (as 1/r). So there is always something rarer left to learn, as in a language, and
# nothing but the word before says what comes: a text for measuring how loss falls.
#
# The random numbers are a small congruential generator rather than rand(), which differs
# from one awk to the next: the same seed writes the same bytes everywhere.

function random(limit) {
    state = (state * 16807) % 2147483647
    return int(state / 2147483647 * limit)
}

# Fills `table` so that a place of it by chance holds 0, 1, 2, ... as often as a power of the rank.
function ranks(table, count, power,    rank, sum, place, filled) {
    for (rank = 1; rank <= count; rank++) sum += rank ^ -power
    for (rank = 1; rank <= count; rank++) {
        filled += rank ^ -power / sum * places
        while (place < filled - 0.5) table[place++] = rank - 1
    }
    while (place < places) table[place++] = count - 1
}

function syllable(idx) {
    return substr("bdfghjklmnprstvz", 1 + idx % 16, 1) substr("aeiou", 1 + int(idx / 16) % 5, 1)
}

BEGIN {
    if (!n) n = 1000
    state = 1 + seed * 7919 % 2147483646
    words = 1000; followers = 256; places = 8192; line_words = 60
    ranks(of_words, words, 1)
    ranks(of_followers, followers, 1.2)
    for (word = 0; word < words; word++) {
        spelt[word] = syllable(word % 80) syllable(int(word / 80) + 7) (word % 3 ? "" : "n")
        for (rank = 0; rank < followers; rank++) follower[word, rank] = of_words[random(places)]
    }
    for (row = 0; row < n; row++) {
        word = of_words[random(places)]
        line = spelt[word]
        for (idx = 1; idx < line_words; idx++) {
            word = follower[word, of_followers[random(places)]]
            line = line " " spelt[word]
        }
        print line
    }
}
