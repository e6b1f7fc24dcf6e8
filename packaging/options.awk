# Reads what `sse --help` prints and writes its options as items of an mdoc list, for sse.1.in; run by
# the Makefile: ./sse --help | awk -f packaging/options.awk. For instance of this line:
#
#       --max-users N             slots in the user table (1024)
#
# A name may be followed, after one space, by what the option takes; the text stands after more.
# Fails if there is no option, as when the program could not be run.

/^  (-[^-], |    )--[a-z]/ {
    letter = name = takes = ""
    sub(/^ +/, "")
    if (/^-[^-], /) {
        letter = "Fl \\&" substr($0, 2, 1) " , "
        sub(/^-., /, "")
    }
    name = $1
    sub(/^--/, "", name)
    $0 = substr($0, length($1) + 1)
    if (/^ [^ ]/) {
        takes = " Ar \\&" $1
        $0 = substr($0, length($1) + 2)
    }
    sub(/^ +/, "")
    gsub(/\\/, "\\e")
    gsub(/-/, "\\-", name) # a minus, not a hyphen: it is to be typed
    print ".It " letter "Fl Fl \\&" name takes
    print "\\&" $0 # whatever it begins with, it is text
    count++
}

END { exit count == 0 }
