"""What other programs read: a PEFT adapter, llama.cpp's, a merged model, with a card each."""
