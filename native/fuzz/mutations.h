// Changes that a mutation of a model file is made of: each keeps most of the file well-formed,
// so that the change is met where it matters and not at the first byte.
#pragma once

#include "input.h"
#include "parts.h"
#include "random.h"

namespace mobilemoe::fuzz {

// One random change to the files of `input`, to its model, or to one part of one file.
void mutate(Input& input, Random& random);

}  // namespace mobilemoe::fuzz
