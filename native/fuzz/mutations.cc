#include "mutations.h"

#include <algorithm>
#include <array>
#include <numeric>

namespace mobilemoe::fuzz {
namespace {

using Change = void (*)(Parts&, Random&);

constexpr std::array kNumbers = {
    "0",          "1",          "2",           "3",          "8",
    "16",         "31",         "32",          "64",         "255",
    "65536",      "2147483647", "2147483648",  "4294967295", "4294967296",
    "99999999",   "100000000",  "1073741824",  "9007199254740993",
    "4611686018427387904",      "9223372036854775807",       "9223372036854775808",
    "18446744073709551615",     "18446744073709551616",      "1000000000000000000000",
    "-1",         "-0",         "00",          "1e3",        "1.0",
    "0x10",       "NaN",        "Infinity",    "true",       "null"};
constexpr std::array kStrings = {
    "U8",    "I8",    "F16",          "BF16",          "F32",           "F64",
    "bf16",  "",      "dtype",        "shape",         "data_offsets",  "__metadata__",
    "lm_head.weight", "model.norm.weight", "model.embed_tokens.weight",
    "model.embed_tokens.qweight",
    "\\u0000", "\\ud83d\\ude00", "\\ud800", "\\udc00", "\\u00e9", "\\uD7FF", "\\x", "\\", "\xff",
    "\xc3\xa9", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\x1f", "\x7f"};
constexpr std::array kMetadata = {
    "\"__metadata__\":{}",
    "\"__metadata__\":{\"format\":\"pt\"}",
    "\"__metadata__\":{\"a\":\"\xe4\xb8\x80\",\"b\":\"\\u4e00\\n\"}",
    "\"__metadata__\":{\"a\":1}",
    "\"__metadata__\":{\"a\":{\"b\":\"c\"}}",
    "\"__metadata__\":[]",
    "\"__metadata__\":null",
    "\"__metadata__\":\"text\"",
    "\"\\u005f_metadata__\":{\"x\":\"y\"}"};
constexpr std::string_view kPunctuation = "{}[]:,\"\\ \t\n0-.eN/";

std::string* any_member(Parts& parts, Random& random) {
  return parts.members.empty() ? nullptr : &random.pick(parts.members);
}

void replace(std::string& text, Range range, const std::string& by) {
  text.replace(range.begin, range.end - range.begin, by);
}

// A number near another one, or one of those where formats break.
std::string other_number(const std::string& number, const Parts& parts, Random& random) {
  const bool small = number.size() <= 18;
  const uint64_t value = small ? std::stoull(number) : 0;
  switch (random.below(8)) {
    case 0: return std::to_string(value + 1);
    case 1: return std::to_string(value - 1);
    case 2: return std::to_string(value * 2);
    case 3: return std::to_string(value / 2);
    case 4: return std::to_string(value + (uint64_t{1} << random.below(64)));
    case 5: return std::to_string(parts.data.size() + random.below(5) - 2);
    default: return random.pick(kNumbers);
  }
}

void change_number(Parts& parts, Random& random) {
  std::string* member = any_member(parts, random);
  if (member == nullptr) return;
  const std::vector<Range> numbers = numbers_of(*member);
  if (numbers.empty()) return;
  const Range range = random.pick(numbers);
  const std::string number = member->substr(range.begin, range.end - range.begin);
  replace(*member, range, other_number(number, parts, random));
}

std::string in_hex(char c) {
  constexpr std::string_view digits = "0123456789abcdef";
  const auto byte = static_cast<uint8_t>(c);
  return {'\\', 'u', '0', '0', digits[byte / 16], digits[byte % 16]};
}

std::string other_string(const std::string& text, const Parts& parts, Random& random) {
  std::string changed = text;
  const size_t at = random.below(text.size() + 1);
  switch (random.below(7)) {
    case 0: return text + random.pick(kStrings);
    case 1: return text.substr(0, at);
    case 2: return changed.insert(at, random.pick(kStrings));
    case 3: return text + std::string(random.below(400), 'x');
    case 4:  // the same text in other words
      return at == text.size() ? text : text.substr(0, at) + in_hex(text[at]) + text.substr(at + 1);
    case 5: {
      const std::string& member = parts.members[random.below(parts.members.size())];
      const std::vector<Range> strings = strings_of(member);
      if (strings.empty()) return text;
      const Range range = random.pick(strings);
      return member.substr(range.begin, range.end - range.begin);
    }
    default: return random.pick(kStrings);
  }
}

void change_string(Parts& parts, Random& random) {
  std::string* member = any_member(parts, random);
  if (member == nullptr) return;
  const std::vector<Range> strings = strings_of(*member);
  if (strings.empty()) return;
  const Range range = random.pick(strings);
  const std::string text = member->substr(range.begin, range.end - range.begin);
  replace(*member, range, other_string(text, parts, random));
}

void change_character(Parts& parts, Random& random) {
  std::string* member = any_member(parts, random);
  if (member == nullptr || member->empty()) return;
  const size_t at = random.below(member->size());
  const char c = random.pick(kPunctuation);
  switch (random.below(3)) {
    case 0: member->erase(at, 1 + random.below(4)); break;
    case 1: member->insert(at, 1, c); break;
    default: (*member)[at] = random.one_in(4) ? static_cast<char>(random.next()) : c;
  }
}

void add_space(Parts& parts, Random& random) {
  constexpr std::string_view spaces = " \t\n\r";
  std::string* member = any_member(parts, random);
  if (member != nullptr && random.one_in(2)) {
    member->insert(random.one_in(2) ? 0 : member->size(), 1, random.pick(spaces));
  } else {
    parts.rest += std::string(1 + random.below(9), random.pick(spaces));
  }
}

void repeat_member(Parts& parts, Random& random) {
  if (parts.members.empty()) return;
  const std::string copy = random.pick(parts.members);
  parts.members.insert(parts.members.begin() + random.below(parts.members.size() + 1), copy);
}

void drop_member(Parts& parts, Random& random) {
  if (parts.members.empty()) return;
  parts.members.erase(parts.members.begin() + random.below(parts.members.size()));
}

void swap_members(Parts& parts, Random& random) {
  if (parts.members.empty()) return;
  std::swap(random.pick(parts.members), random.pick(parts.members));
}

void add_metadata(Parts& parts, Random& random) {
  parts.members.insert(parts.members.begin() + random.below(parts.members.size() + 1),
                       random.pick(kMetadata));
}

// Two tensors where only one was.
void copy_offsets(Parts& parts, Random& random) {
  std::string *from = any_member(parts, random), *to = any_member(parts, random);
  if (from == nullptr) return;
  if (const auto offsets = offsets_of(*from)) set_offsets(*to, *offsets);
}

// Moves one tensor, or all from some place on, so that they overlap or leave a gap.
void shift_offsets(Parts& parts, Random& random) {
  const std::string* one = any_member(parts, random);
  if (one == nullptr) return;
  const auto from = offsets_of(*one);
  const uint64_t far = 1 + random.below(64);
  const uint64_t step = random.one_in(2) ? far : uint64_t{0} - far;
  const bool all = random.one_in(2);
  if (!from) return;
  for (std::string& member : parts.members) {
    const auto offsets = offsets_of(member);
    if (!offsets || (&member != one && !(all && offsets->first >= from->first))) continue;
    set_offsets(member, {offsets->first + step, offsets->second + step});
  }
  if (all && step == far && random.one_in(2)) {
    parts.data.insert(std::min<size_t>(from->first, parts.data.size()), step, '\1');
  }
}

// Adds `more` bytes to the data before `at`, or takes them away; what lies behind moves along.
void resize_data(Parts& parts, uint64_t at, int64_t more) {
  if (more >= 0) {
    parts.data.insert(at, static_cast<size_t>(more), '\3');
  } else {
    parts.data.erase(at - static_cast<uint64_t>(-more), static_cast<uint64_t>(-more));
  }
  for (std::string& member : parts.members) {
    const auto offsets = offsets_of(member);
    if (!offsets || offsets->first < at) continue;
    set_offsets(member, {offsets->first + static_cast<uint64_t>(more),
                         offsets->second + static_cast<uint64_t>(more)});
  }
}

// The offsets of a member whose bytes are there.
std::optional<Offsets> held_offsets(const Parts& parts, const std::string* member) {
  const auto offsets = member == nullptr ? std::nullopt : offsets_of(*member);
  if (!offsets || offsets->first >= offsets->second) return std::nullopt;
  return offsets->second <= parts.data.size() ? offsets : std::nullopt;
}

// One tensor lies over others, whose data close up, so that the end still fits.
void overlap_offsets(Parts& parts, Random& random) {
  std::string *one = any_member(parts, random), *other = any_member(parts, random);
  const auto mine = held_offsets(parts, one), theirs = held_offsets(parts, other);
  if (!mine || !theirs) return;
  const uint64_t size = mine->second - mine->first;
  const uint64_t lost = random.one_in(2) ? size : 1 + random.below(size);
  resize_data(parts, mine->second, -static_cast<int64_t>(lost));
  const uint64_t begin = lost < size ? mine->first : std::min(theirs->first, mine->first);
  set_offsets(*one, {begin, begin + size});
}

// A tensor of another shape or dtype, with the bytes that go with it, in a file that fits it.
void resize_tensor(Parts& parts, Random& random) {
  std::string* member = any_member(parts, random);
  const auto offsets = held_offsets(parts, member);
  if (!offsets) return;
  const uint64_t size = offsets->second - offsets->first;
  const size_t shape = member->find("\"shape\":[");
  const size_t half = member->find("F16\"");
  uint64_t wanted = size;
  if (half != std::string::npos && random.one_in(2)) {
    const bool bfloat = (*member)[half - 1] == 'B';
    member->replace(half - bfloat, 3 + bfloat, "F32");
    wanted = 2 * size;
  } else if (shape != std::string::npos) {
    const std::vector<Range> numbers = numbers_of(*member);
    const auto first = std::ranges::find_if(numbers, [&](Range r) { return r.begin > shape; });
    if (first == numbers.end() || first->end - first->begin > 9) return;
    const uint64_t rows = std::stoull(member->substr(first->begin, first->end - first->begin));
    const uint64_t other = random.one_in(2) ? rows + 1 : rows / 2;
    if (rows == 0 || other > 1000) return;
    replace(*member, *first, std::to_string(other));
    wanted = size / rows * other;
  }
  resize_data(parts, offsets->second, static_cast<int64_t>(wanted) - static_cast<int64_t>(size));
  set_offsets(*member, {offsets->first, offsets->first + wanted});
}

// The same tensors in another order of the data: as valid as before.
void reorder_data(Parts& parts, Random& random) {
  std::vector<size_t> order(parts.members.size());
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  std::string data;
  for (const size_t i : order) {
    const auto offsets = offsets_of(parts.members[i]);
    if (!offsets) continue;
    const auto [begin, end] = *offsets;
    if (begin > end || end > parts.data.size()) return;
    set_offsets(parts.members[i], {data.size(), data.size() + end - begin});
    data += parts.data.substr(begin, end - begin);
  }
  parts.data = data;
}

// Another shape of the same product: [4,16] becomes [16,4], [64], [2,2,16] or [4,16,1].
void change_shape(Parts& parts, Random& random) {
  std::string* member = any_member(parts, random);
  if (member == nullptr) return;
  const size_t begin = member->find("\"shape\":[");
  const size_t comma = member->find(',', begin == std::string::npos ? begin : begin + 9);
  const size_t end = member->find(']', begin == std::string::npos ? begin : begin + 9);
  if (begin == std::string::npos || comma == std::string::npos || end == std::string::npos) return;
  const size_t first = begin + 9;
  switch (random.below(4)) {
    case 0: member->insert(end, ",1"); break;
    case 1: member->insert(first, "1,"); break;
    case 2: member->insert(first, "0,"); break;
    default:
      if (comma > end) return;
      *member = member->substr(0, first) + member->substr(comma + 1, end - comma - 1) + "," +
                member->substr(first, comma - first) + member->substr(end);
  }
}

void change_length(Parts& parts, Random& random) {
  const uint64_t header = put_together(parts).size() - parts.data.size() - 8;
  constexpr std::array<uint64_t, 8> lengths = {
      0, 1, 2, 100'000'000, 100'000'001, uint64_t{1} << 63, ~uint64_t{0}, uint64_t{1} << 32};
  switch (random.below(3)) {
    case 0: parts.length = header + random.below(9) - 4; break;
    case 1: parts.length = header + parts.data.size() + random.below(5) - 2; break;
    default: parts.length = random.pick(lengths);
  }
}

void change_data(Parts& parts, Random& random) {
  if (random.one_in(2)) {
    parts.data.resize(parts.data.size() - std::min(parts.data.size(), 1 + random.below(80)));
  } else {
    parts.data.append(1 + random.below(80), '\2');
  }
}

constexpr Change kChanges[] = {change_number, change_number, change_number,  change_string,
                               change_string, change_character, add_space,   repeat_member,
                               drop_member,   swap_members,  add_metadata,   copy_offsets,
                               shift_offsets, overlap_offsets, resize_tensor, reorder_data,
                               change_shape,  change_length, change_data};

void change_part(std::string& file, Random& random) {
  if (auto parts = take_apart(file)) {
    random.pick(kChanges)(*parts, random);
    file = put_together(*parts);
  }
}

// Half of the tensors of one file go into another one, which is as valid as before.
void split_file(Input& input, Random& random) {
  auto parts = take_apart(random.pick(input.files));
  if (!parts || input.files.size() > 2) return;
  Parts halves[2];
  for (const std::string& member : parts->members) {
    const auto offsets = held_offsets(*parts, &member);
    if (!offsets) return;
    Parts& half = halves[random.below(2)];
    const uint64_t size = offsets->second - offsets->first, begin = half.data.size();
    half.members.push_back(member);
    set_offsets(half.members.back(), {begin, begin + size});
    half.data += parts->data.substr(offsets->first, size);
  }
  input.files = {put_together(halves[0]), put_together(halves[1])};
}

void move_member(Input& input, Random& random) {
  std::string &from = random.pick(input.files), &to = random.pick(input.files);
  auto source = take_apart(from), target = take_apart(to);
  if (!source || !target || source->members.empty()) return;
  target->members.push_back(random.pick(source->members));
  to = put_together(*target);
}

void change_bytes(std::string& file, Random& random) {
  if (file.empty()) return;
  const size_t at = random.below(file.size()), count = 1 + random.below(8);
  switch (random.below(4)) {
    case 0: file.resize(at); break;
    case 1: file.erase(at, count); break;
    case 2: file.insert(at, count, static_cast<char>(random.next())); break;
    default: file[at] = static_cast<char>(random.next());
  }
}

}  // namespace

void mutate(Input& input, Random& random) {
  switch (random.below(32)) {
    case 0: input.variant = random.below(variants().size()); break;
    case 1: input.files.push_back(valid_file(random.pick(variants()))); break;
    case 2: random.pick(input.files) = valid_file(random.pick(variants())); break;
    case 3: input.files.erase(input.files.begin() + random.below(input.files.size())); break;
    case 4: split_file(input, random); break;
    case 5: move_member(input, random); break;
    case 6: change_bytes(random.pick(input.files), random); break;
    default: change_part(random.pick(input.files), random);
  }
  if (input.files.empty()) input.files = {valid_file(variants()[input.variant])};
}

}  // namespace mobilemoe::fuzz
