# Who may include whom. Given C files of src/, prints each include that breaks the rule:
#
#   awk -f tools/layers.awk src/*/*.c src/*/*.h
#
# A file sees its own layer's header and its own *_internal.h, and the headers of the layers that
# the table names for it; the public header is open to all. Foreign headers belong to one layer. ref
# is no part of the library: its second header, check.h, is what `doppler check` sees of it.
BEGIN {
    may["base"] = ""
    may["gpu"] = "base"
    may["format"] = "base"
    may["text"] = "base format"
    may["store"] = "base format"
    may["model"] = "base format text store gpu"
    may["ref"] = "base format gpu model"
    may["app"] = "base format"
    may["web"] = "base gpu model"

    owner["yyjson.h"] = "base"
    owner["openssl/sha.h"] = "format"
    owner["pcre2.h"] = owner["utf8proc.h"] = "text"
    owner["webgpu.h"] = owner["wgpu.h"] = owner["webgpu/webgpu.h"] = "gpu"
    owner["curl/curl.h"] = "store"
    owner["dlfcn.h"] = "gpu store"
}

function refuse(why) {
    printf "%s:%d: %s\n", FILENAME, FNR, why
    bad = 1
}

FNR == 1 {
    n = split(FILENAME, path, "/")
    layer = path[n - 1]
    if (!(layer in may)) refuse("no layer is called " layer)
}

/^[ \t]*#[ \t]*include[ \t]/ {
    name = $0
    sub(/^[^"<]*["<]/, "", name)
    sub(/[">].*/, "", name)
    if (name in owner) {
        if (index(" " owner[name] " ", " " layer " ") == 0)
            refuse(name " is for src/" owner[name] " alone")
        next
    }
    if ($0 ~ /</) next
    if (name == "doppler.h") next
    if (name == "kernels_gen.h") {
        if (layer != "model" && layer != "gpu" && layer != "ref")
            refuse(name " is for src/model, src/gpu and src/ref alone")
        next
    }
    if (name == "tables_gen.h") {
        if (layer != "web") refuse(name " is for src/web alone")
        next
    }
    if (name == "ref/check.h") {
        if (layer != "ref" && FILENAME !~ /(app|web)\/check\.c$/)
            refuse("ref/check.h is for src/app/check.c and src/web/check.c alone")
        next
    }
    if (split(name, part, "/") != 2) {
        refuse("\"" name "\": an include is written \"layer/layer.h\"")
        next
    }
    if (part[2] ~ /_internal\.h$/) {
        if (part[1] != layer) refuse("\"" name "\" is internal to " part[1])
    } else if (part[2] != part[1] ".h") {
        refuse("\"" name "\": a layer has one header, " part[1] "/" part[1] ".h")
    } else if (part[1] != layer && index(" " may[layer] " ", " " part[1] " ") == 0) {
        refuse(layer " may not include " part[1])
    } else if (layer == "app" && part[1] == "format" &&
               path[n] != "convert.c" && path[n] != "inspect.c") {
        refuse("in app only convert.c and inspect.c may include format")
    }
}

END { exit bad }
