# What a reader has made before a page begins: `<!-- before: . "$GUIDE/guide_setup.sh"; keys author; ... -->`. Paths are relative to where the page stands.

# keys NAME...: NAME.key and NAME.pub
keys() {
  local name
  for name; do snapcount keys new "$name" || return; done
}

# shipped NAME: a skill that comes along, signed, as NAME.wasm
shipped() {
  snapcount skill sign "skills/$1/$1.wasm" --key author.key --out "$1.wasm"
}

# version NAME VERSION: the project in the folder NAME with this version, built and signed as NAME.wasm
version() {
  sed -i "s/^version = .*/version = \"$2\"/" "$1/skill.toml" && snapcount skill build "$1" --out "$1.wasm" && snapcount skill sign "$1.wasm" --key author.key
}

# serving OPTIONS...: a registry on port 8470
serving() {
  : >registry.log
  snapcount registry serve --dir bundles "$@" >>registry.log 2>&1 &
  until grep -q '^registry at' registry.log; do sleep 0.1; kill -0 $! || return; done
}

# node NAME OPTIONS...: makes one and runs it
node() {
  local name=$1
  shift
  snapcount node init --state "$name" --name "$name" --owner-key owner.key --trust author.pub "$@" || return
  running "$name"
}

# running NAME: runs one that was made, until it is ready; `stop NAME` ends it
running() {
  : >"$1.log"  # what a run before wrote is no sign of this one
  snapcount node run --state "$1" >>"$1.log" 2>&1 &
  echo $! >"$1.pid"
  until grep -q ': ready, ' "$1.log"; do sleep 0.1; kill -0 "$(cat "$1.pid")" || { cat "$1.log"; return 1; }; done
}

stop() {
  kill "$(cat "$1.pid")" && wait "$(cat "$1.pid")"
}
