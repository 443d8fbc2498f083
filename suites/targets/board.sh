#!/bin/sh
# What depthbench does on a Jetson. It needs a POSIX shell with the usual utilities, trtexec and tegrastats; no Python.
#
# Without arguments: measure everything that stands in the file "plan" beside this script, offline, into one result file.
# Stopped half-way, the same command goes on where it was. Power mode and clocks are put back as they were, always.
#
#     sh run.sh
#
# With arguments it is one step, asked for over SSH: probe, hold, put, facts, idle, build, check, time, pack, clean.
# Exit codes: 0 done, 40 a named failure (its reason is the last line on standard error), 43 the board is in use, 44 power mode
# or clocks could not be put back.

set -uf
umask 077
trap '' PIPE # whoever listened may be gone; what was begun is still ended properly
LC_ALL=C
export LC_ALL
ROOT=${DEPTHBENCH_SYSROOT-}
LOCK=${TMPDIR:-/tmp}/depthbench-board.lock
PATH=$PATH:/usr/src/tensorrt/bin:/usr/sbin:/sbin
SILENT_S=60

die() {
    printf 'reason: %s\n' "$*" >&2
    exit 40
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@" </dev/null; else sudo -n "$@" </dev/null; fi
}

one_line() { tr -s '\n\t\r\000 ' '     ' | cut -c1-300 | sed 's/^ *//; s/ *$//'; }

read_file() { if [ -r "$1" ]; then one_line <"$1"; fi; }

sha256() { sha256sum "$1" | cut -d' ' -f1; }

# --- what the board is ---------------------------------------------------------------------------------------------

trt_version() { # from the text of trtexec --help, its own digits: 8201, 8502, 100300
    printf '%s\n' "$1" | sed -n 's/.*\[TensorRT v\([0-9][0-9]*\)\].*/\1/p' | head -n 1
}

mode_id() { # number of the power mode, the last line of nvpmodel's answer
    { nvpmodel -q 2>/dev/null </dev/null || as_root nvpmodel -q 2>/dev/null; } | sed -n 's/^\([0-9][0-9]*\)$/\1/p' | tail -n 1
}

mode_name() { nvpmodel -q 2>/dev/null </dev/null | sed -n 's/.*NV Power Mode: *//p' | tail -n 1; }

gpu_files() { # the GPU's devfreq folder, whatever the generation calls it
    set +f
    for folder in "$ROOT"/sys/class/devfreq/*gpu* "$ROOT"/sys/class/devfreq/*gp10b "$ROOT"/sys/class/devfreq/*gv11b \
        "$ROOT"/sys/class/devfreq/*ga10b; do
        if [ -r "$folder/cur_freq" ]; then
            printf '%s\n' "$folder"
            break
        fi
    done
    set -f
}

state() { # clocks, temperatures and over-current events of this moment
    gpu=$(gpu_files)
    if [ -n "$gpu" ]; then
        printf 'gpu_hz=%s\n' "$(read_file "$gpu/cur_freq")"
        printf 'gpu_max_hz=%s\n' "$(read_file "$gpu/max_freq")"
    fi
    printf 'power_mode_id=%s\n' "$(mode_id)"
    set +f
    for zone in "$ROOT"/sys/class/thermal/thermal_zone*; do
        if [ -r "$zone/temp" ]; then printf 'temperature.%s=%s\n' "$(read_file "$zone/type")" "$(read_file "$zone/temp")"; fi
    done
    for count in "$ROOT"/sys/class/hwmon/hwmon*/oc*_event_cnt; do
        if [ -r "$count" ]; then printf 'over_current.%s=%s\n' "${count##*/}" "$(read_file "$count")"; fi
    done
    set -f
}

probe() {
    printf 'model=%s\n' "$(read_file "$ROOT/proc/device-tree/model")"
    printf 'l4t=%s\n' "$(sed -n 's/^# R\([0-9]*\) (release), REVISION: \([0-9.]*\).*/R\1.\2/p' "$ROOT/etc/nv_tegra_release" 2>/dev/null)"
    printf 'kernel=%s\n' "$(uname -sr)"
    if command -v trtexec >/dev/null 2>&1; then
        printf 'trtexec=%s\n' "$(command -v trtexec)"
        printf 'tensorrt=%s\n' "$(trt_version "$(trtexec --help 2>&1 </dev/null)")"
    fi
    if command -v tegrastats >/dev/null 2>&1; then printf 'tegrastats=%s\n' "$(command -v tegrastats)"; fi
    if command -v nvpmodel >/dev/null 2>&1; then printf 'power_mode=%s\n' "$(mode_name)"; fi
    printf 'power_modes=%s\n' "$(sed -n 's/^< *POWER_MODEL *ID=\([0-9]*\) *NAME=\([A-Za-z0-9_-]*\) *>.*/\1:\2/p' "$ROOT/etc/nvpmodel.conf" 2>/dev/null | one_line)"
    if as_root true 2>/dev/null; then echo root=yes; else echo root=no; fi
    printf 'free_mb=%s\n' "$(df -Pk . | awk 'NR == 2 { print int($4 / 1000) }')"
    if [ -d "$LOCK" ] && owner_lives "$LOCK"; then echo lock=held; else echo lock=free; fi
    state
}

# --- the lock, the power mode and the clocks -------------------------------------------------------------------------

started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

boot() { read_file /proc/sys/kernel/random/boot_id; }

owner_lives() { # the process that took this lock is still the same one, since the same start of the board
    owner=$(read_file "$1/owner")
    if [ -z "$owner" ]; then # made this moment, or left by a crash in that moment
        sleep 2
        owner=$(read_file "$1/owner")
    fi
    [ -n "$owner" ] && [ "$owner" = "${owner%% *} $(started "${owner%% *}") $(boot)" ]
}

take_lock() { # TOKEN
    if [ -d "$LOCK" ] && ! owner_lives "$LOCK"; then # its owner died: put back what it changed
        seen=$(read_file "$LOCK/owner")
        if mv "$LOCK" "$LOCK.$$" 2>/dev/null; then
            if [ "$(read_file "$LOCK.$$/owner")" = "$seen" ]; then
                case $seen in *" $(boot)") stop "$LOCK.$$" ;; esac
                restore "$LOCK.$$"
                rm -rf "$LOCK.$$"
            else
                mv "$LOCK.$$" "$LOCK"
            fi
        fi
    fi
    if ! mkdir "$LOCK" 2>/dev/null; then
        [ -d "$LOCK" ] || die "the lock $LOCK cannot be made"
        printf 'reason: another client is using the board (process %s)\n' "$(read_file "$LOCK/owner" | cut -d' ' -f1)" >&2
        exit 43
    fi
    printf '%s %s %s\n' "$$" "$(started $$)" "$(boot)" >"$LOCK/owner"
    printf '%s\n' "$1" >"$LOCK/token"
}

set_clocks() { # MODE|- lock|keep; what was before is written down first
    if [ "$1" != - ] && [ "$(mode_id)" != "$1" ]; then
        before=$(mode_id)
        [ -n "$before" ] || die "the power mode cannot be read (nvpmodel -q)"
        { printf '%s\n' "$before" >"$LOCK/mode"; } 2>/dev/null && [ "$(read_file "$LOCK/mode")" = "$before" ] ||
            die "the power mode that was cannot be written down ($LOCK/mode): it stays as it is"
        said=$(as_root nvpmodel -m "$1" 2>&1 | one_line)
        [ "$(mode_id)" = "$1" ] || die "power mode $1 was not taken: $said"
    fi
    if [ "$2" = lock ]; then
        said=$(as_root jetson_clocks --store "$LOCK/clocks" 2>&1) || die "the clocks cannot be read: $(printf '%s' "$said" | one_line)"
        [ -s "$LOCK/clocks" ] || die "the clocks that were cannot be written down ($LOCK/clocks): they stay as they are"
        : >"$LOCK/locked"
        said=$(as_root jetson_clocks 2>&1) || die "the clocks cannot be locked: $(printf '%s' "$said" | one_line)"
    fi
}

restore() { # LOCK; says on standard error what could not be put back, and returns 1 then
    kept=0
    if [ -f "$1/locked" ] && ! said=$(as_root jetson_clocks --restore "$1/clocks" 2>&1); then
        printf 'reason: the clocks were not put back: %s\n' "$(printf '%s' "$said" | one_line)" >&2
        kept=1
    fi
    if [ -s "$1/mode" ]; then
        said=$(as_root nvpmodel -m "$(cat "$1/mode")" 2>&1 | one_line)
        if [ "$(mode_id)" != "$(read_file "$1/mode")" ]; then
            printf 'reason: the power mode was not put back to %s: %s\n' "$(read_file "$1/mode")" "$said" >&2
            kept=1
        fi
    fi
    return "$kept"
}

stop() { # LOCK: end what runs under it; without its token a step that ends now is no failure of its own
    rm -f "$1/token"
    if [ -s "$1/running" ]; then
        process=$(cat "$1/running")
        kill "$process" 2>/dev/null
        sleep 1
        kill -9 "$process" 2>/dev/null
    fi
}

release() {
    trap '' HUP INT TERM
    trap - EXIT
    stop "$LOCK"
    restore "$LOCK"
    code=$?
    rm -rf "$LOCK"
    if [ -n "${reader-}" ]; then kill "$reader" 2>/dev/null; fi
    [ "$code" = 0 ] || exit 44
}

heard() { # in one piece: whoever looks while it is written must not find it empty
    date +%s >"$LOCK/alive.new" && mv -f "$LOCK/alive.new" "$LOCK/alive"
}

hold() { # TOKEN MODE CLOCKS; until standard input ends or falls silent
    take_lock "$1"
    trap release EXIT
    trap 'exit 41' HUP INT TERM
    for folder in $(ls ..); do # left by a client that died
        case $folder in
        job-[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f])
            if [ "$folder" != "${PWD##*/}" ] && [ -f "../$folder/board.sh" ]; then rm -rf "../$folder"; fi
            ;;
        esac
    done
    set_clocks "$2" "$3"
    heard
    echo held
    exec 3<&0
    (
        while read -r _ <&3; do heard; done
        kill -TERM $$
    ) &
    reader=$!
    while sleep 1; do
        alive=$(cat "$LOCK/alive")
        [ $(($(date +%s) - ${alive:-0})) -lt "$SILENT_S" ] || die "nothing was heard of the client for $SILENT_S s"
    done
}

holding() { [ "$(read_file "$LOCK/token")" = "$1" ] || die "the lock on the board was lost"; }

# --- steps on one cell -------------------------------------------------------------------------------------------------

failed() { # KEY REASON: kept with the cell's results
    [ -e "$LOCK/token" ] || die "the run was stopped"
    printf '%s\n' "$2" | one_line >"out/$1/failed"
    die "$2"
}

limited() { # SECONDS LOG COMMAND...: the command's exit code, 124 when its time was over
    limit=$1
    log=$2
    shift 2
    rm -f "$log.over"
    "$@" >"$log" 2>&1 </dev/null &
    child=$!
    if [ -d "$LOCK" ]; then printf '%s\n' "$child" >"$LOCK/running"; fi
    (
        trap 'kill $! 2>/dev/null; exit 0' TERM
        sleep "$limit" &
        nap=$!
        wait "$nap"
        : >"$log.over"
        kill "$child"
        sleep 3 &
        nap=$!
        wait "$nap"
        kill -9 "$child"
    ) >/dev/null 2>&1 </dev/null &
    dog=$!
    wait "$child"
    code=$?
    kill "$dog" 2>/dev/null
    wait "$dog" 2>/dev/null
    rm -f "$LOCK/running"
    if [ -f "$log.over" ]; then
        rm -f "$log.over"
        return 124
    fi
    return "$code"
}

explain() { # CODE LOG SECONDS: why trtexec did not do it
    case $1 in
    124) printf 'trtexec was not done after %s s' "$3" ;;
    126 | 127) printf 'there is no trtexec on the board' ;;
    137) printf 'trtexec was killed by signal 9 (out of memory?)' ;;
    *)
        said=$(sed -n 's/.*\[E\] *//p' "$2" | head -n 3 | one_line)
        printf 'trtexec failed (code %s): %s' "$1" "${said:-$(tail -n 1 "$2" | one_line)}"
        ;;
    esac
}

tensorrt() { # sets help and version; the flags of a later or earlier trtexec are not known here
    command -v trtexec >/dev/null 2>&1 || failed "$1" "there is no trtexec on the board"
    limited 60 "out/$1/help.log" trtexec --help
    [ $? != 124 ] || failed "$1" "trtexec --help was not done after 60 s"
    help=$(cat "out/$1/help.log")
    rm -f "out/$1/help.log"
    version=$(trt_version "$help")
    [ -n "$version" ] || failed "$1" "trtexec does not say its version"
    if [ "$version" -lt 8000 ] || [ "$version" -ge 110000 ]; then failed "$1" "TensorRT v$version is not supported (8.0 to 10.x)"; fi
}

precision_flags() {
    case $1 in
    fp32) echo --noTF32 ;;
    fp16) echo --fp16 ;;
    int8-trt) echo --int8 --fp16 ;;
    *) die "unknown precision $1" ;;
    esac
}

build() { # KEY PRECISION LIMIT_S WORKSPACE_MB ENGINE: builds differ from each other, so that there are several
    mkdir -p "out/$1"
    number=$5
    tensorrt "$1"
    sha256 "$1.onnx" >"out/$1/onnx.sha256"
    if [ "$version" -lt 8400 ]; then pool=--workspace=$4; else pool=--memPoolSize=workspace:$4; fi
    if [ "$version" -lt 8600 ]; then only=--buildOnly; else only=--skipInference; fi
    # shellcheck disable=SC2046 # the flags of a precision are words of this script
    set -- "$1" "$3" trtexec "--onnx=$1.onnx" "--saveEngine=$1.$5.engine" $(precision_flags "$2") "$pool" "$only"
    key=$1 limit_s=$2
    shift 2
    printf '%s\n' "$*" >"out/$key/build-$number.cmd"
    limited "$limit_s" "out/$key/build-$number.log" "$@"
    code=$?
    if [ "$code" != 0 ]; then
        rm -f "$key.$number.engine" # half of one would fill the disk for those that follow
        failed "$key" "build: $(explain "$code" "out/$key/build-$number.log" "$limit_s")"
    fi
    [ -s "$key.$number.engine" ] || failed "$key" "build: trtexec wrote no engine"
    sha256 "$key.$number.engine" >"out/$key/engine-$number.sha256"
    printf '%s\n' "$version" >"out/$key/tensorrt"
}

check() { # KEY INPUT FRAMES SIZE LIMIT_S ENGINE: the engine's output for each frame
    tensorrt "$1"
    bytes=$((${4%x*} * ${4#*x} * 12))
    i=0
    while [ "$i" -lt "$3" ]; do
        dd if="frames-$4.bin" of=frame.bin bs="$bytes" skip="$i" count=1 2>/dev/null
        limited "$5" "out/$1/check.log" trtexec "--loadEngine=$1.$6.engine" "--loadInputs=$2:frame.bin" \
            "--exportOutput=out/$1/output-$6-$i.json" --iterations=1 --duration=0 --warmUp=0
        code=$?
        [ "$code" = 0 ] || failed "$1" "check: $(explain "$code" "out/$1/check.log" "$5")"
        i=$((i + 1))
    done
}

statistics() { # FILE: tegrastats into it, until "stats" is killed
    stats=
    if command -v tegrastats >/dev/null 2>&1; then
        tegrastats --interval 200 >"$1" 2>&1 </dev/null &
        stats=$!
    fi
}

idle() { # SECONDS: what the board draws when nothing runs
    mkdir -p out
    statistics out/idle.log
    sleep "$1"
    if [ -n "$stats" ]; then kill "$stats" 2>/dev/null; fi
    wait
}

time_engine() { # KEY NUMBER SECONDS LIMIT_S ENGINE
    tensorrt "$1"
    out=out/$1
    number=$2
    limit_s=$4
    key=$1
    times=$out/times-$2-$5.json
    set -- trtexec "--loadEngine=$1.$5.engine" "--exportTimes=$times" --warmUp=1000 "--duration=$3" --iterations=10
    for flag in --noDataTransfers --useSpinWait --useCudaGraph --separateProfileRun; do
        case $help in *"$flag"*) set -- "$@" "$flag" ;; esac
    done
    printf '%s\n' "$*" >"$out/time.cmd"
    state >"$out/before-$number"
    statistics "$out/tegrastats-$number.log"
    limited "$limit_s" "$out/time-$number.log" "$@"
    code=$?
    if [ -n "$stats" ]; then kill "$stats" 2>/dev/null; fi
    state >"$out/after-$number"
    [ "$code" = 0 ] || failed "$key" "timing: $(explain "$code" "$out/time-$number.log" "$limit_s")"
    [ -s "$times" ] || failed "$key" "timing: trtexec wrote no times"
}

put() { # NAME BYTES, from standard input; whole or not at all
    if ! cat >"$1.part" 2>put.err; then
        said=$(one_line <put.err)
        rm -f "$1.part"
        die "the file could not be written to the board: ${said#cat: }"
    fi
    [ "$(wc -c <"$1.part" | tr -d ' ')" = "$2" ] || die "the file did not arrive whole"
    mv "$1.part" "$1"
}

pack() { # everything under out, each file behind a line with its size and name
    find out -type f ! -name '*.over' | sort | while read -r file; do
        printf '%s %s\n' "$(wc -c <"$file" | tr -d ' ')" "${file#out/}"
        cat "$file"
    done
    echo end
}

facts() {
    mkdir -p out
    probe >out/facts
}

# --- a bundle: the steps of the file "plan", offline -------------------------------------------------------------------

bundle() {
    [ -r plan ] || die "there is no file 'plan' beside run.sh"
    mkdir -p out/done
    read -r _ result mode clocks _ <plan
    cp plan out/plan
    take_lock "bundle-$$"
    trap release EXIT
    trap 'exit 41' HUP INT TERM
    set_clocks "$mode" "$clocks"
    facts
    number=0
    total=$(wc -l <plan | tr -d ' ')
    while read -r verb key a b c d e; do
        number=$((number + 1))
        if [ "$verb" = run ] || [ -e "out/done/$number" ] || [ -e "out/$key/failed" ]; then continue; fi
        printf '%s/%s %s %s\n' "$number" "$total" "$verb" "$key" >&2
        ( # in a process of its own, so that its failure is its own
            case $verb in
            idle) idle "$key" ;;
            build) build "$key" "$a" "$b" "$c" "$d" ;;
            check) check "$key" "$a" "$b" "$c" "$d" "$e" ;;
            time) time_engine "$key" "$a" "$b" "$c" "$d" ;;
            esac
        ) &
        wait $!
        : >"out/done/$number"
    done <plan
    rm -rf out/done
    pack >"$result.part" && mv "$result.part" "$result"
    printf 'done: send back %s\n' "$result" >&2
}

verb=${1-bundle}
if [ $# -gt 0 ]; then shift; fi
case $verb in
probe) probe ;;
bundle)
    cd "$(dirname "$0")" || die "the folder of run.sh cannot be entered"
    bundle
    ;;
hold | put | facts | idle | build | check | time | pack | clean)
    cd "$(dirname "$0")" || die "the work folder is gone"
    case $verb in
    hold) hold "$@" ;;
    put) put "$@" ;;
    clean)
        rm -rf "$PWD"
        ;;
    *) # a step needs the lock, whose token comes first
        holding "$1"
        shift
        case $verb in time) time_engine "$@" ;; *) "$verb" "$@" ;; esac
        ;;
    esac
    ;;
*) die "unknown step $verb" ;;
esac
